"""One canonical message, with what of the file it was made of."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Message:
    """One message as `schema.MESSAGES` holds it, with what of the file it was made of: `path` is where it stood, `used`
    are its keys that are in the fields, `rest` is what is left for the metadata."""

    role: str
    content: str
    name: str | None = None
    tool_calls: str | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    weight: int | None = None
    path: str = field(default="", compare=False)
    used: tuple[str, ...] = field(default=(), compare=False)
    rest: dict[str, Any] = field(default_factory=dict, compare=False)

    def texts(self) -> list[str]:
        """The field values that make the message what it is, in order; those without a value at the end are left out.

        What identifies a row is made of them, so a message of role and content alone has no other parts.
        """
        others = (self.name, self.tool_calls, self.tool_call_id, self.reasoning_content)
        named = ("name", "tool_calls", "tool_call_id", "reasoning_content")
        found = [f"{name}\x1d{value}" for name, value in zip(named, others, strict=True) if value is not None]
        if self.weight is not None:
            found.append(f"weight\x1d{self.weight}")
        return [self.role, self.content, *found]
