"""One request on its way through the layers, who sent it, and the answer that comes back."""

import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request

from images.gateway.errors import ApiError

if TYPE_CHECKING:
    from images.gateway.exposures import Exposure
    from images.gateway.guards.verdict import Verdict
    from images.gateway.routes import Endpoint, Replica, Route

log = logging.getLogger("gateway")

CLIENT_LEFT = 499
"""The status under which a request is counted and logged whose client went away before its answer was whole."""

Proceed = Callable[["Call"], Awaitable["Answer"]]
"""The layers below: what they answer to a call. Raises ApiError where they refuse it."""


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A method on a path (`{name}` in it stands for one part), and what answers it.

    `kind`: it is sent to a model server as `chat`, `completions` or `embeddings`, and so passes all layers. `is_open`:
    it passes none, which is for health alone.
    """

    method: str
    path: str
    answer: Proceed
    kind: str | None = None
    is_open: bool = False

    @property
    def asks_model(self) -> bool:
        return self.kind is not None

    @property
    def is_logged(self) -> bool:
        """Whether its requests are exposures: what has an answer that somebody reads."""
        return self.kind in ("chat", "completions")


class EndUser(msgspec.Struct, frozen=True, gc=False):
    """Whom the answer is for: `user` decides the variant; `new_session` is a session id that the client is to keep."""

    user: str
    session: str | None
    new_session: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a request's credential belongs to; what is None does not restrict.

    `key` is the id of an API key and `subject` that of a token; with neither the caller is anonymous, which the
    authenticating layer lets pass only where the installation says so.
    """

    key: str | None = None
    subject: str | None = None
    owner: str | None = None
    team: str | None = None
    roles: frozenset[str] = frozenset()
    endpoints: frozenset[str] | None = None
    requests_per_minute: int | None = None
    monthly_tokens: int | None = None
    name: str = field(init=False)
    """What limits and the ledger count by: the key's id, or `sub:` and the subject; empty for the anonymous.

    Whoever chooses a subject cannot choose that of a key.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.key or (f"sub:{self.subject}" if self.subject else ""))

    @property
    def is_anonymous(self) -> bool:
        return self.key is None and self.subject is None


ANONYMOUS = Identity()


@dataclass(slots=True)
class Answer:
    """What a client gets: a whole `body`, or `events` as they come.

    Each item of `events` is one or more whole server-sent events, each with the blank line that ends it. A layer that
    looks at a stream replaces `events` by a generator of its own over the ones it found. `content` is a completion in
    `body` as the first who needed it decoded it: who puts another body in its place leaves it out.
    """

    status: int = 200
    body: bytes = b""
    events: AsyncIterator[bytes] | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    content: dict[str, Any] | None = None

    @classmethod
    def of(cls, content: Any, status: int = 200) -> "Answer":
        """An answer in JSON."""
        return cls(status, msgspec.json.encode(content))

    @classmethod
    def of_error(cls, error: ApiError) -> "Answer":
        """An error in OpenAI's shape."""
        return cls(error.status, error.encoded(), headers=error.headers())


_drawn: list[str] = []
# Two processes must not go on with the same ones.
os.register_at_fork(after_in_child=_drawn.clear)


def _random_hex() -> str:
    """32 random hexadecimal digits. Drawn by the hundred: each call of the system's source costs more than a layer."""
    if not _drawn:
        digits = os.urandom(16 * 128).hex()
        _drawn.extend(digits[at : at + 32] for at in range(0, len(digits), 32))
    return _drawn.pop()


class Call:
    """One request: what it carries, what the layers found out about it, and what is to be done when it is over.

    Layers write their findings here for those below and for the log: `caller`, `has_role` (of its roles one may call
    endpoints), `body` (the JSON object, null fields left out), `endpoint`, `end_user`, `query` (the user's last
    message), `route` (assigned, or that of who answered instead), `replica` (who was asked last), `exposure`, `payload`
    (what goes to the model server), `usage` (what the server counted), `used` (`usage.tokens_of`), `timings` (seconds
    by name), `verdicts` (of guards), `notes` (anything else that a later layer or the log needs, by a name of its
    layer). `headers` go to the client with whatever is answered. `status` and `error` are how it ended; `refusal` is
    the code of the error that it was refused with before a variant was assigned, which no client chooses.
    """

    __slots__ = (
        "_closers", "_headers", "_is_open", "_request", "begun", "body", "caller", "end_user", "endpoint", "error",
        "exposure", "has_role", "headers", "is_overdue", "is_probe", "is_read", "is_reading", "is_streamed", "notes",
        "operation", "parameters", "payload", "query", "receive", "refusal", "replica", "request_id", "route",
        "scope", "status", "timings", "usage", "used", "verdicts",
    )  # fmt: skip

    def __init__(
        self,
        operation: Operation,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        parameters: dict[str, str] | None = None,
    ) -> None:
        self.operation = operation
        self.scope = scope
        self.receive = receive
        self.parameters = parameters or {}
        self.begun = time.monotonic()
        self.request_id = f"req-{_random_hex()}"
        self.headers: dict[str, str] = {"x-request-id": self.request_id}
        self.caller = ANONYMOUS
        self.has_role = False
        self.body: dict[str, Any] = {}
        self.is_probe = False
        self.is_read = False
        self.is_reading = self.is_overdue = False
        self.is_streamed = False
        self.endpoint: Endpoint | None = None
        self.end_user: EndUser | None = None
        self.query = ""
        self.route: Route | None = None
        self.replica: Replica | None = None
        self.exposure: Exposure | None = None
        self.payload: dict[str, Any] = {}
        self.usage: dict[str, Any] | None = None
        self.used: tuple[int, int, bool] | None = None
        self.timings: dict[str, float] = {}
        self.verdicts: list[Verdict] = []
        self.notes: dict[str, Any] = {}
        self.status: int | None = None
        self.error: str | None = None
        self.refusal: str | None = None
        self._headers: dict[bytes, bytes] | None = None
        self._request: Request | None = None
        self._closers: list[Callable[[], None]] = []
        self._is_open = True

    @property
    def request(self) -> Request:
        """The request as Starlette has it, made when it is first asked for."""
        if self._request is None:
            self._request = Request(self.scope, self.receive)
        return self._request

    def header(self, name: bytes) -> str | None:
        """A header of the request by its name in small letters, the first of several; None where it is missing."""
        if self._headers is None:
            self._headers = dict(reversed(self.scope["headers"]))
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def is_from_loopback(self) -> bool:
        """Whether the connection comes from this machine. It proves nothing: a reverse proxy's does too."""
        client = self.scope.get("client")
        return client is not None and (client[0].startswith("127.") or client[0] in ("::1", "localhost"))

    @property
    def is_over(self) -> bool:
        """Whether it ended, so that nothing more is found out about it."""
        return not self._is_open

    def on_close(self, closer: Callable[[], None]) -> None:
        """Have `closer` called once when the call is over, however it ends; the last one first.

        By then `status` and `error` are set. It must not wait for anything.
        """
        self._closers.append(closer)

    def end(self, status: int, error: str | None = None) -> None:
        """Note how the call ends; what was noted first stays."""
        if self.status is None:
            self.status, self.error = status, error

    def close(self) -> None:
        """Call what is to be called at the end. Once: a second closing does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        self.end(CLIENT_LEFT, "the client went away")
        # They refer to the call: kept, it would wait for the collector with all that it holds.
        closers, self._closers = self._closers, []
        for closer in reversed(closers):
            try:
                closer()
            except Exception:  # one layer's clean-up must not keep another from its own
                log.exception("request %s could not be closed properly", self.request_id)
