"""What a guard decided about a text, and why."""

from typing import Literal

import msgspec

Side = Literal["in", "out", "retrieved"]
"""A request, an answer, or a passage that was found for the request."""
Outcome = Literal["pass", "mask", "refuse"]


class Verdict(msgspec.Struct, frozen=True, gc=False, rename={"outcome": "verdict"}):
    """One guard's decision on one request or answer.

    `reason` says what was found and where, in words that hold nothing of the text; None where nothing was. `figure` is
    what was measured: spans of personal data, a score from 0 to 1, characters, a share. `where` is the field, or the
    id of the passage. The log of requests keeps it as it is encoded.
    """

    guard: str
    side: Side
    outcome: Outcome
    reason: str | None = None
    figure: float | None = None
    where: str | None = None


def figure_of(value: float | None) -> float | None:
    """A share or a score as verdicts have it, to four digits."""
    return None if value is None else round(value, 4)


class GuardUnavailable(RuntimeError):
    """A guard cannot judge: its model is missing or failed. Nothing passes it."""
