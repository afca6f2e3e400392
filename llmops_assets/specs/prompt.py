"""Which version of which prompt an endpoint puts before what its users write."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from llmops_assets.specs.base import Int, Name, Part

VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
"""A variable of a prompt, as MLflow writes them; nothing else of a template is read."""
ROLES = ("system", "developer", "user", "assistant")


class Prompt(Part):
    """A prompt of the registry, by an alias that may move or by a version that does not."""

    name: Name
    alias: Name | None = Field(default=None, description="Such as production or staging.")
    version: Int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _by_one_of_both(self) -> "Prompt":
        if (self.alias is None) == (self.version is None):
            raise ValueError("write either alias or version")
        return self

    @property
    def ref(self) -> str:
        """As people write it: name@alias or name@version."""
        return f"{self.name}@{self.alias or self.version}"


def texts_of(template: str | list[dict[str, str]]) -> Iterator[str]:
    """The texts of a template."""
    yield from [template] if isinstance(template, str) else (message["content"] for message in template)


def variables(template: str | list[dict[str, str]]) -> list[str]:
    """Names of the variables of a template, in order, each once."""
    return list(dict.fromkeys(name for text in texts_of(template) for name in VARIABLE.findall(text)))


def fault_of(template: Any) -> str | None:
    """Why a template cannot be used; None where it can."""
    if isinstance(template, str):
        return None if template.strip() else "it is empty"
    if not isinstance(template, list) or not template:
        return "it should be a text, or a list of messages with role and content"
    for number, message in enumerate(template):
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            return f"message {number} should have role and content, and nothing else"
        if message["role"] not in ROLES:
            return f"the role of message {number} should be one of {', '.join(ROLES)}"
        if not isinstance(message["content"], str):
            return f"the content of message {number} should be text"
    return None
