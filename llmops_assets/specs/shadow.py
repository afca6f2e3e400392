"""Whom a share of an endpoint's requests is copied to, after they were answered."""

from pydantic import Field

from llmops_assets.specs.base import Float, Name, Part


class Shadow(Part):
    """A candidate that answers what users asked and is heard by nobody. Without this block nothing is copied."""

    endpoint: Name = Field(description="The candidate: another endpoint, which serves it under gates of its own.")
    percent: Float = Field(default=10.0, gt=0, le=100, description="Of the requests that a model answered.")
