"""Whether an endpoint gives an answer again, to whom, and for how long."""

from typing import Literal

from pydantic import Field

from llmops_assets.specs.base import Bool, Int, Part


class Cache(Part):
    """Answers to the very same request, given again. Without this block none are kept."""

    ttl_seconds: Int = Field(default=600, ge=1, le=86_400, description="How long an answer is kept.")
    max_entries: Int = Field(default=1000, ge=1, le=100_000, description="Answers kept at most; the oldest go.")
    scope: Literal["key", "team"] = Field(
        default="key", description="Who shares answers: one API key (or subject of a token), or a team's."
    )
    sampled: Bool = Field(
        default=False, description="Keep answers too that a model chose by chance (temperature, no seed)."
    )
