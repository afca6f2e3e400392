"""Which requests to an endpoint reached no model: why, how many, and of whom."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from llmops_assets.operations.access import allowed
from llmops_assets.wiring import Wiring

_MOST_CALLERS = 20


@dataclass(frozen=True)
class ByReason:
    """So many requests were refused with the code `reason` and an HTTP status."""

    reason: str
    status: int
    requests: int


@dataclass(frozen=True)
class ByCaller:
    """So many requests of one caller were refused for one reason.

    `caller` is what a key is recognised by, `sub:` and the subject of a token, or empty where nobody was known.
    """

    caller: str
    owner: str
    team: str
    reason: str
    requests: int


@dataclass(frozen=True)
class RefusedRequests:
    """What was refused in the last `days` before a variant was assigned, most first; `answered` were assigned one.

    `callers` is None for who may not read usage; of very many the most refused.
    """

    days: int
    requests: int
    answered: int
    reasons: list[ByReason]
    callers: list[ByCaller] | None

    @property
    def by_reason(self) -> dict[str, int]:
        """How many requests by the code of the error, whatever their status."""
        found = Counter[str]()
        for one in self.reasons:
            found[one.reason] += one.requests
        return dict(found.most_common())


def refused_requests(wiring: Wiring, actor: str, endpoint: str, *, days: int = 7) -> RefusedRequests:
    """What was refused at an endpoint; NotFound where there is none."""
    catalog = wiring.catalog
    catalog.endpoint(endpoint)
    since = datetime.now(UTC) - timedelta(days=days)
    rows = catalog.refusals.by(["reason", "status"], endpoint=endpoint, since=since)
    reasons = [ByReason(row["reason"], row["status"], row["requests"]) for row in rows]
    outcomes = catalog.outcomes(endpoint=endpoint, since=since).values()
    may_see = allowed(wiring, actor, "usage.read")
    return RefusedRequests(
        days=days,
        requests=sum(one.requests for one in reasons),
        answered=round(sum(one["requests"] for one in outcomes)),
        reasons=reasons,
        callers=list(_callers(wiring, endpoint, since)) if may_see else None,
    )


def _callers(wiring: Wiring, endpoint: str, since: datetime) -> Iterable[ByCaller]:
    rows = wiring.catalog.refusals.by(["key", "reason"], endpoint=endpoint, since=since)[:_MOST_CALLERS]
    keys = {key.id: key for key in wiring.catalog.api_keys.all()} if rows else {}
    for row in rows:
        key = keys.get(row["key"])
        if key is None:
            yield ByCaller(row["key"], "", "", row["reason"], row["requests"])
        else:
            yield ByCaller(key.shown, key.owner, key.team or "", row["reason"], row["requests"])
