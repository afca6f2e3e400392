"""Reads the hand-written tables that everything here is generated from."""

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict


class Intent(BaseModel):
    """One matter that the desk answers, always in the same words."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    category: str
    lang: Literal["ko", "en"] = "ko"
    ask: Literal["how", "info", "where", "cost", "can", "trouble", "en"]
    topics: tuple[str, ...]
    answer: str
    facts: tuple[str, ...]


@cache
def table(name: str) -> Any:
    """Content of a YAML file beside this module, shared: do not change it."""
    return yaml.safe_load(files("examples.expressway").joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


@cache
def intents() -> tuple[Intent, ...]:
    """All intents, in the order of the file."""
    return tuple(Intent.model_validate(row) for row in table("intents"))
