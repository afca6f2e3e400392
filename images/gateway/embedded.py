"""Puts what embeddings used on record, by the minute: nobody reads them, so that they are no exposures."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from images.gateway.call import Call
from images.gateway.usage import tokens_of
from resources.traffic.entries import Embedded, now

_SUM_SECONDS = 1.0

_Kind = tuple[datetime, str, str, str, str]
"""Minute, endpoint, model, key, team."""


class EmbeddingsUsed:
    """Gives what was used to `put`, which never waits, every second: no more than that is lost with the process."""

    def __init__(self, put: Callable[[Embedded], object]) -> None:
        self._put = put
        self._sums: dict[_Kind, Embedded] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, call: Call) -> None:
        """Count a call that is over and that reached a model."""
        minute = now().replace(second=0, microsecond=0)
        caller, exposure = call.caller, call.exposure
        kind = (minute, exposure.endpoint, exposure.model_ref, caller.name, caller.team or "")
        found = self._sums.get(kind)
        if found is None:
            found = self._sums[kind] = Embedded(*kind)
        prompt, _, is_estimated = tokens_of(call)
        found.requests += 1
        found.failed += (call.status or 500) >= 400
        found.prompt_tokens += prompt
        found.estimated_tokens += prompt if is_estimated else 0
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SUM_SECONDS, self.flush)

    def flush(self) -> None:
        """Give on what was counted and not given on yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sums, self._sums = self._sums, {}
        for one in sums.values():
            self._put(one)
