"""What a check says: whether something holds, why, and the figures that it rests on."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """A failed one says in `text` what was wrong and what to do."""

    passed: bool
    text: str
    figures: dict[str, float | int | str] = field(default_factory=dict)
