"""What the routes share: the platform's resources, who may ask, and the work that goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from images.console.callers import Caller, Callers
from images.console.limits import Limiter
from images.console.login.tries import Tries
from images.console.works import Works
from images.gateway.access.addresses import Addresses
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from resources.oidc import Provider


@dataclass
class State:
    """`import_roots`: folders whose files may be registered by path; None allows any. Without a `limiter` a caller may
    send any number of requests. `provider` is where users log in who have no password here; with `secure` cookies are
    for TLS alone.
    """

    wiring: Wiring
    callers: Callers
    import_roots: Sequence[Path] | None
    works: Works = field(default_factory=Works)
    limiter: Limiter | None = None
    provider: "Provider | None" = None
    secure: bool = False
    tries: Tries = field(default_factory=Tries)

    @property
    def uploads(self) -> Path:
        """Where files are while they are being uploaded."""
        return self.wiring.settings.root / "incoming"

    def address_of(self, request: Request) -> str:
        """The address that a request comes from; what a proxy says of it counts from trusted ones alone."""
        peer = request.client.host if request.client else None
        return Addresses(tuple(self.callers.trusted)).client(peer, request.headers.getlist("x-forwarded-for"))


def _state(request: Request) -> State:
    return cast(State, request.app.state.console)


def _caller(request: Request) -> Caller:
    peer = request.client.host if request.client else None
    here = _state(request)
    caller = here.callers.identify(peer, request.headers, request.method)
    if here.limiter is not None:
        here.limiter.take(caller.user)
    return caller


Here = Annotated[State, Depends(_state)]
Asking = Annotated[Caller, Depends(_caller)]
