"""What was used of the models: requests and tokens, by key, team, endpoint, model and day."""

from collections.abc import Collection
from datetime import date
from typing import Any

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring

BY = {"key": "key", "team": "team", "endpoint": "endpoint", "model": "model_ref", "day": "day"}
"""What usage can be asked for by, and what the ledger calls it."""


def usage_by(
    wiring: Wiring, actor: str, by: Collection[str], *, since: str | None = None, until: str | None = None
) -> list[dict[str, Any]]:
    """Sums by some of BY, from one day (UTC, `YYYY-MM-DD`) to another, most tokens first; Refused for any other."""
    authorise(wiring, actor, "usage.read")
    if unknown := [name for name in by if name not in BY]:
        raise Refused(f"usage is not kept by {', '.join(unknown)}; choose of {', '.join(BY)}")
    check_days(since, until)
    return wiring.catalog.usage.by([BY[name] for name in by], since=since, until=until)


def check_days(since: str | None, until: str | None) -> None:
    """Raise Refused for what is no day, or for two in the wrong order."""
    for name, day in (("since", since), ("until", until)):
        if day is not None and not _is_day(day):
            raise Refused(f"{name} {day!r} is no day: write YYYY-MM-DD")
    if since is not None and until is not None and since > until:
        raise Refused(f"since {since} is after until {until}")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
