"""What a guard decided about a text, and why."""

from typing import Any, Literal, NamedTuple

Side = Literal["in", "out", "retrieved"]
"""A request, an answer, or a passage that was found for the request."""
Outcome = Literal["pass", "mask", "refuse"]


class Verdict(NamedTuple):
    """One guard's decision on one request or answer.

    `reason` says what was found and where, in words that hold nothing of the text; None where nothing was. `figure` is
    what was measured: spans of personal data, a score from 0 to 1, characters, a share. `where` is the field, or the
    id of the passage.
    """

    guard: str
    side: Side
    outcome: Outcome
    reason: str | None = None
    figure: float | None = None
    where: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As the log of requests keeps it."""
        return {
            "guard": self.guard,
            "side": self.side,
            "verdict": self.outcome,
            "reason": self.reason,
            "figure": None if self.figure is None else round(self.figure, 4),
            "where": self.where,
        }


class GuardUnavailable(RuntimeError):
    """A guard cannot judge: its model is missing or failed. Nothing passes it."""
