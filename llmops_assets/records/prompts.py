"""A version of a prompt as an endpoint uses it: taken from the registry once, not for each request."""

import hashlib
import json
from dataclasses import dataclass

Template = str | list[dict[str, str]]


@dataclass(frozen=True)
class ResolvedPrompt:
    """A prompt's version and its text: one text, or messages with `role` and `content`; `alias` is what named it."""

    name: str
    version: int
    template: Template
    alias: str | None = None

    @property
    def digest(self) -> str:
        """16 hex digits of the text."""
        return hashlib.sha256(json.dumps(self.template, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """As exposures name it."""
        return f"{self.name}@{self.version}"
