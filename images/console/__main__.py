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
from llmops_assets.operations.logins import holder_of_session
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.oidc import Provider

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
    wiring = Wiring(settings)
    provider = provider_of(settings)
    trusted = networks(settings.trusted_proxies or ("127.0.0.0/8, ::1/128" if is_loopback else ""))
    if not is_loopback:
        _refuse_without_login(wiring, host, bool(trusted), provider)
    roots = settings.import_roots
    allowed = [Path(part).expanduser().absolute() for part in roots.split(":") if part] if roots else []
    # Whoever can reach loopback here may run the command too, which asks nobody's name; unless others are expected.
    is_open = is_loopback and not (settings.trusted_proxies or settings.public_url or provider)
    is_secure = (settings.public_url or "").startswith("https://")
    return State(
        wiring,
        callers_of(wiring, trusted, open_to="console" if is_open else None, secure=is_secure),
        None if is_loopback and not roots else allowed,
        provider=provider,
        secure=is_secure,
        limiter=None if is_loopback and not settings.console_requests_per_minute else Limiter(_rate(settings)),
    )


def _rate(settings: Settings) -> int:
    return settings.console_requests_per_minute or USUAL_REQUESTS


def _refuse_without_login(wiring: Wiring, host: str, is_behind_proxy: bool, provider: Provider | None) -> None:
    """Raise SystemExit where others reach the console and it could tell nobody from anybody."""
    if is_behind_proxy:
        return
    if provider is None and not wiring.catalog.users.any():
        raise SystemExit(
            f"the console would listen on {host} and could tell nobody from anybody: make a user (llmops user create), "
            "name a provider of logins (LLMOPS_OIDC_ISSUER), name the proxies that log users in "
            "(LLMOPS_TRUSTED_PROXIES), or keep it on loopback"
        )
    if wiring.settings.public_url is None:
        raise SystemExit(
            f"the console would listen on {host} and take passwords there: name the address that browsers have of it, "
            "LLMOPS_PUBLIC_URL=https://…, for which TLS is needed before it"
        )


def provider_of(settings: Settings) -> Provider | None:
    """The provider that users log in at; None without one. Raises SystemExit where too little is said of it."""
    if settings.oidc_issuer is None:
        return None
    if settings.oidc_client_id is None or settings.public_url is None:
        raise SystemExit(
            "users shall log in at LLMOPS_OIDC_ISSUER: set LLMOPS_OIDC_CLIENT_ID and LLMOPS_PUBLIC_URL, too; the "
            "provider sends them back to PUBLIC_URL/login/callback"
        )
    try:
        return Provider(
            settings.oidc_issuer,
            settings.oidc_client_id,
            settings.oidc_secret,
            f"{settings.public_url.rstrip('/')}/login/callback",
            scopes=settings.oidc_scopes,
            user_claim=settings.oidc_user_claim,
        )
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error


def callers_of(
    wiring: Wiring, trusted: Sequence[Network] = (), open_to: str | None = None, *, secure: bool = False
) -> Callers:
    """Who may ask on an installation: holders of its API keys and sessions, users of trusted proxies, `open_to`."""

    def holder(secret: str) -> tuple[str, str] | None:
        key = holder_of(wiring, secret)
        return None if key is None else (key.owner, key.role)

    def roles(words: frozenset[str]) -> frozenset[str]:
        return wiring.policy.access.roles_of({wiring.policy.access.claims.roles: sorted(words)})

    return Callers(
        holder,
        roles,
        trusted,
        open_to,
        sessions=lambda secret: holder_of_session(wiring, secret),
        # A name that begins so is taken by browsers over TLS alone, and from this host alone.
        cookie="__Host-llmops-session" if secure else "llmops-session",
        has_users=wiring.catalog.users.any,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
