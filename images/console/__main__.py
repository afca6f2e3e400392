"""Starts the console with the installation's settings."""

import argparse
import ipaddress
import logging
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from images.console.app import create_app
from images.console.callers import Callers, Network, networks
from images.console.limits import Limiter
from images.console.state import State
from llmops_assets.operations.api_keys import holder_of
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring

USUAL_REQUESTS = 600
"""Requests a minute of one caller, where nothing else is set: a page that follows something sends thirty."""


def main(arguments: list[str] | None = None) -> None:
    """Serve the console until it is stopped."""
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m images.console", description=__doc__)
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.console_port)
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvicorn.run(create_app(state_of(settings, a.host)), host=a.host, port=a.port, access_log=False, server_header=False)


def state_of(settings: Settings, host: str) -> State:
    """What the routes share on an installation that is bound to `host`; raises SystemExit where nobody could log in."""
    is_loopback = _is_loopback(host)
    trusted = networks(settings.trusted_proxies or ("127.0.0.0/8, ::1/128" if is_loopback else ""))
    if not is_loopback and not trusted:
        raise SystemExit(
            f"the console would listen on {host} and could tell nobody from anybody: name the proxies that log users "
            "in (LLMOPS_TRUSTED_PROXIES), or keep it on loopback"
        )
    roots = settings.import_roots
    allowed = [Path(part).expanduser().absolute() for part in roots.split(":") if part] if roots else []
    wiring = Wiring(settings)
    return State(
        wiring,
        # Whoever can reach loopback here may run the command too, which asks nobody's name.
        callers_of(wiring, trusted, open_to="console" if is_loopback else None),
        None if is_loopback and not roots else allowed,
        limiter=None if is_loopback and not settings.console_requests_per_minute else Limiter(_rate(settings)),
    )


def _rate(settings: Settings) -> int:
    return settings.console_requests_per_minute or USUAL_REQUESTS


def callers_of(wiring: Wiring, trusted: Sequence[Network] = (), open_to: str | None = None) -> Callers:
    """Who may ask on an installation: holders of its API keys, users of trusted proxies, and `open_to`."""

    def holder(secret: str) -> tuple[str, str] | None:
        key = holder_of(wiring, secret)
        return None if key is None else (key.owner, key.role)

    def roles(words: frozenset[str]) -> frozenset[str]:
        return wiring.policy.access.roles_of({wiring.policy.access.claims.roles: sorted(words)})

    return Callers(holder, roles, trusted, open_to)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
