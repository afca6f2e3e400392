"""What models, endpoints and teams cost, and what an improvement of an endpoint cost, for who may see usage."""

from collections.abc import Collection
from typing import Any

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.usage import check_days
from llmops_assets.usage import spending
from llmops_assets.usage.price import Improvement
from llmops_assets.usage.spending import BY, Books
from llmops_assets.wiring import Wiring


def spending_by(
    wiring: Wiring, actor: str, by: Collection[str], *, since: str | None = None, until: str | None = None
) -> list[dict[str, Any]]:
    """What was spent by day, endpoint, model or team, the dearest first; Refused for what it is not kept by."""
    authorise(wiring, actor, "usage.read")
    if unknown := [name for name in by if name not in BY]:
        raise Refused(f"spending is not kept by {', '.join(unknown)}; choose of {', '.join(BY)}")
    check_days(since, until)
    return spending.spending_by(_books(wiring), by, since=since, until=until)


def improvements(wiring: Wiring, actor: str, endpoint: str) -> list[Improvement]:
    """Every promotion of an endpoint with what it cost, oldest first; NotFound where there is no such endpoint."""
    authorise(wiring, actor, "usage.read")
    return spending.improvements(_books(wiring), endpoint)


def _books(wiring: Wiring) -> Books:
    return Books(wiring.catalog, wiring.records, wiring.policy.prices)
