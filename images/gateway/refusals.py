"""Puts on record what was refused before a variant was assigned: each request, or of very many how many there were."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from images.gateway.call import CLIENT_LEFT, Call
from resources.traffic.entries import Refusal, now

EACH_A_MINUTE = 60
"""So many alike (of one endpoint, caller, reason) are on record each; what comes beyond within a minute is counted."""
_SUM_SECONDS = 1.0

_Kind = tuple[str, str, str, str, int]
"""Endpoint, key, team, reason, status."""


class Refusals:
    """Gives refusals to `put`, which never waits: a flood of them takes a row a minute and kind, and what whoever is
    not known sends is never more than that.

    What is counted is given on every second, so that no more is lost with the process.
    """

    def __init__(self, put: Callable[[Refusal], object], *, knows_callers: Callable[[], bool]) -> None:
        self._put = put
        self._knows_callers = knows_callers
        self._minute: datetime | None = None
        self._seen: Counter[_Kind] = Counter()
        self._counted: Counter[tuple[datetime, _Kind]] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def note(self, call: Call) -> None:
        """Put a call that is over on record; `call.refusal`, or how it ended otherwise, is the reason."""
        reason = call.refusal or ("client_left" if call.status == CLIENT_LEFT else "internal_error")
        endpoint, caller = call.endpoint.name if call.endpoint else "", call.caller
        kind = (endpoint, caller.name, caller.team or "", reason, call.status or 500)
        at = now()
        minute = at.replace(second=0, microsecond=0)
        if minute != self._minute:
            self._minute = minute
            self._seen.clear()
        self._seen[kind] += 1
        is_stranger = caller.is_anonymous and self._knows_callers()
        if is_stranger or self._seen[kind] > EACH_A_MINUTE:
            self._counted[minute, kind] += 1
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_SUM_SECONDS, self.flush)
        else:
            self._put(_refusal(call.request_id, at, kind))

    def flush(self) -> None:
        """Give on what was counted and not given on yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for (minute, kind), count in self._counted.items():
            self._put(_refusal("", minute, kind, requests=count, is_sum=True))
        self._counted.clear()


def _refusal(request_id: str, at: datetime, kind: _Kind, *, requests: int = 1, is_sum: bool = False) -> Refusal:
    endpoint, key, team, reason, status = kind
    return Refusal(
        request_id=request_id, at=at, endpoint=endpoint, reason=reason, status=status, key=key, team=team,
        requests=requests, is_sum=is_sum,
    )  # fmt: skip
