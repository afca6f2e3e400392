"""The log of what users asked and got: queued in memory, masked and written in batches by a thread of its own."""

import hashlib
import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from images.gateway.metrics import Metrics
from resources.catalog import Catalog

log = logging.getLogger("gateway.exposures")

_DATA = re.compile(rb"^data: ?(\{.*\})\s*$", re.MULTILINE)
_BATCH_ROWS = 200
_BATCH_SECONDS = 0.25


@dataclass(slots=True)
class Exposure:
    """One chat request, as the request's handler saw it; `body` holds the answer's bytes, parsed by the writer."""

    request_id: str
    at: datetime
    endpoint: str
    salt: str
    experiment: str | None
    phase: int
    variant: int
    backend: str
    model_ref: str
    user: str
    session: str | None
    query: str
    streamed: bool
    body: bytes = b""
    status: int = 200
    error: str | None = None
    latency_ms: float = 0.0
    ttft_ms: float | None = None
    source: str = "model"


class ExposureLog:
    """Takes exposures without ever waiting; drops and counts what there is no room for.

    `mask` replaces personal data in a text. It runs in the writer's thread, before anything is written.
    """

    def __init__(
        self, catalog: Catalog, mask: Callable[[str], str], metrics: Metrics, *, capacity: int = 10_000
    ) -> None:
        self._catalog = catalog
        self._mask = mask
        self._metrics = metrics
        self._capacity = capacity
        self._queue: deque[Exposure] = deque()
        # Announced or queued, and not written yet: the salt that the user's pseudonym is made with.
        self._pending: dict[str, str] = {}
        # A user comes again and again; looking for personal data in the same name each time would cost the most.
        self.pseudonym = lru_cache(maxsize=20_000)(self._pseudonym)
        self._closing = threading.Event()
        self._give_up_at = math.inf
        self._thread = threading.Thread(target=self._write_all, name="exposures", daemon=True)
        self._thread.start()

    def expect(self, exposure: Exposure) -> None:
        """Announce an exposure that is to come, so that its answer can be rated as soon as it is read."""
        self._pending[exposure.request_id] = exposure.salt

    def put(self, exposure: Exposure) -> None:
        if len(self._queue) >= self._capacity:
            self._pending.pop(exposure.request_id, None)
            self._metrics.dropped.labels("queue full").inc()
            return
        self.expect(exposure)
        self._queue.append(exposure)

    def is_pending(self, request_id: str) -> bool:
        """Whether an exposure is announced or queued, and not written yet."""
        return request_id in self._pending

    def pending_salt(self, request_id: str) -> str | None:
        """The salt that an exposure not written yet will name its user with, or None where none is pending."""
        return self._pending.get(request_id)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def close(self, seconds: float = 10.0) -> None:
        """Write what is queued, for at most `seconds`, and end the thread."""
        until = time.monotonic() + seconds
        self._give_up_at = until - 0.5
        self._closing.set()
        self._thread.join(seconds)
        if left := len(self._pending):
            log.error("%d exposures were not written before the gateway ended", left)

    def _write_all(self) -> None:
        while True:
            # Woken by the clock and not by each exposure: waking would cost more than writing.
            is_last = self._closing.wait(_BATCH_SECONDS)
            while batch := self._take():
                rows = [row for exposure in batch if (row := self._row_or_none(exposure)) is not None]
                if rows:
                    self._write(rows)
                for exposure in batch:
                    self._pending.pop(exposure.request_id, None)
            if is_last:
                return

    def _take(self) -> list[Exposure]:
        return [self._queue.popleft() for _ in range(min(_BATCH_ROWS, len(self._queue)))]

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Write rows, again and again while the catalog cannot be reached; then the queue fills and says so.

        When it refuses them, each row is written on its own, and only what is refused is lost.
        """
        pause = 0.1
        while True:
            try:
                self._catalog.add_exposures(rows)
                self._metrics.exposures.inc(len(rows))
                return
            except (OperationalError, PoolTimeout, OSError) as error:
                log.error("%d exposures cannot be written yet: %s", len(rows), _reason(error))
            except Exception as error:  # noqa: BLE001  whatever is wrong with a row, the others are written
                if len(rows) == 1:
                    log.error("exposure %s cannot be written: %s", rows[0]["request_id"], _reason(error))
                    self._metrics.dropped.labels("refused").inc()
                    return
                for row in rows:
                    self._write([row])
                return
            if time.monotonic() + pause > self._give_up_at:
                self._metrics.dropped.labels("not written").inc(len(rows))
                return
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _row_or_none(self, exposure: Exposure) -> dict[str, Any] | None:
        try:
            return self._row(exposure)
        except Exception as error:  # noqa: BLE001  a text that cannot be masked is not written, and ends nothing
            log.error("exposure %s cannot be masked: %s", exposure.request_id, _reason(error))
            self._metrics.dropped.labels("refused").inc()
            return None

    def _row(self, exposure: Exposure) -> dict[str, Any]:
        completion = read_answer(exposure.body, exposure.streamed)
        # The status of a stream is sent before its first token; what fails later stands in the stream.
        failed_later = exposure.streamed and exposure.status == 200 and completion.error is not None
        return {
            "request_id": exposure.request_id,
            "at": exposure.at,
            "endpoint": exposure.endpoint,
            "experiment": exposure.experiment,
            "phase": exposure.phase,
            "variant": exposure.variant,
            "backend": exposure.backend,
            "model_ref": exposure.model_ref,
            "user": self.pseudonym(exposure.user, exposure.salt),
            "session": None if exposure.session is None else self.pseudonym(exposure.session, exposure.salt),
            "query": self._mask(exposure.query),
            "response": None if completion.text is None else self._mask(completion.text),
            "status": 502 if failed_later else exposure.status,
            "error": exposure.error or completion.error,
            "latency_ms": exposure.latency_ms,
            "ttft_ms": exposure.ttft_ms,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "finish_reason": completion.finish_reason,
            "source": exposure.source,
        }

    def _pseudonym(self, user: str, salt: str) -> str:
        """`user` as it is, or a keyed hash of it where it holds personal data (an address used as a name)."""
        if self._mask(user) == user:
            return user
        digest = hashlib.sha256(f"{salt}:{user}".encode("utf-8", "surrogatepass")).hexdigest()
        return f"id-{digest[:16]}"

    def mask(self, text: str) -> str:
        return self._mask(text)


@dataclass(slots=True)
class ParsedCompletion:
    """What an answer says: its text and its figures, None where it does not say."""

    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


def read_answer(body: bytes, streamed: bool) -> ParsedCompletion:
    """Read an OpenAI chat completion, or the events of a streamed one; what cannot be read is left out."""
    completion, texts = ParsedCompletion(), []
    for part in _parts(body, streamed):
        if isinstance(part.get("error"), dict | str):
            error = part["error"]
            completion.error = error if isinstance(error, str) else str(error.get("message", error))
        for choice in _dicts(part.get("choices")):
            if isinstance(choice.get("text"), str):
                texts.append(choice["text"])
            for message in _dicts([choice.get("delta"), choice.get("message")]):
                if isinstance(message.get("content"), str):
                    texts.append(message["content"])
            if isinstance(choice.get("finish_reason"), str):
                completion.finish_reason = choice["finish_reason"]
        for usage in _dicts([part.get("usage")]):
            completion.prompt_tokens = _count(usage.get("prompt_tokens"), completion.prompt_tokens)
            completion.completion_tokens = _count(usage.get("completion_tokens"), completion.completion_tokens)
    completion.text = "".join(texts) if texts else None
    return completion


def _dicts(values: Any) -> list[dict[str, Any]]:
    """The objects in a list; of anything else none: a model server may write what it likes."""
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _count(value: Any, known: int | None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else known


def _parts(body: bytes, streamed: bool) -> Iterable[dict[str, Any]]:
    for piece in _DATA.findall(body) if streamed else [body]:
        try:
            part = msgspec.json.decode(piece)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(part, dict):
            yield part


def _reason(error: Exception) -> str:
    """What went wrong, without the parameters of the statement: users' words have no place in a program's log."""
    return f"{type(error).__name__}: {getattr(error, 'orig', None) or type(error).__name__}"


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)
