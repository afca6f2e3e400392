"""What the routes share: the platform's resources, who may ask, and the work that goes on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request

from images.console.callers import Caller, Callers
from images.console.limits import Limiter
from images.console.works import Works
from llmops_assets.wiring import Wiring


@dataclass
class State:
    """`import_roots`: folders whose files may be registered by path; None allows any. Without a `limiter` a caller may
    send any number of requests."""

    wiring: Wiring
    callers: Callers
    import_roots: Sequence[Path] | None
    works: Works = field(default_factory=Works)
    limiter: Limiter | None = None

    @property
    def uploads(self) -> Path:
        """Where files are while they are being uploaded."""
        return self.wiring.settings.root / "incoming"


def _state(request: Request) -> State:
    return cast(State, request.app.state.console)


def _caller(request: Request) -> Caller:
    peer = request.client.host if request.client else None
    here = _state(request)
    caller = here.callers.identify(peer, request.headers)
    if here.limiter is not None:
        here.limiter.take(caller.user)
    return caller


Here = Annotated[State, Depends(_state)]
Asking = Annotated[Caller, Depends(_caller)]
