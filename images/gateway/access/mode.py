"""Whether the gateway asks who calls, and whether an installation has said enough for that; decided at the start."""

from dataclasses import dataclass
from ipaddress import ip_address

from images.gateway.access.addresses import Network, networks
from images.gateway.access.jwks import Jwks, KeysUnusable, check_source
from images.gateway.access.tokens import Tokens
from llmops_assets.specs.access import AccessPolicy
from llmops_assets.specs.settings import Settings

_STORES = ("redis://", "rediss://", "unix://")


class AccessMisconfigured(ValueError):
    """The gateway must not start as it is configured; the message says what to set."""


@dataclass(frozen=True)
class Access:
    """What was decided: `tokens` is None where none are taken."""

    is_on: bool
    limits_on: bool
    trusted: tuple[Network, ...]
    tokens: Tokens | None


def is_loopback(host: str) -> bool:
    """Whether an address to bind is reached from this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def access_of(settings: Settings, policy: AccessPolicy, host: str | None = None) -> Access:
    """What `settings` say of access, for a gateway that binds `host`; AccessMisconfigured where that is too little.

    On loopback access is off unless something says that others come: tokens or trusted proxies that are named.
    """
    host = host or settings.gateway_address
    if settings.gateway_workers > 1 and settings.gateway_store_url is None:
        raise AccessMisconfigured(
            f"{settings.gateway_workers} workers would each count limits and budgets by themselves: name a Valkey or "
            "Redis in LLMOPS_GATEWAY_STORE_URL, or set LLMOPS_GATEWAY_WORKERS=1"
        )
    if settings.gateway_store_url is not None and not settings.gateway_store_url.startswith(_STORES):
        # It may hold a password.
        raise AccessMisconfigured(f"LLMOPS_GATEWAY_STORE_URL should begin with one of {', '.join(_STORES)}")
    try:
        trusted = networks(settings.gateway_trusted_proxies or "")
    except ValueError as error:
        raise AccessMisconfigured(f"LLMOPS_GATEWAY_TRUSTED_PROXIES: {error}") from error
    tokens = _tokens(settings, policy)
    on_loopback = is_loopback(host)
    wish = settings.gateway_access or ("off" if on_loopback and tokens is None and not trusted else "on")
    if wish == "off" and not on_loopback:
        raise AccessMisconfigured(
            f"the gateway binds {host}, where others reach it, and LLMOPS_GATEWAY_ACCESS is off: set it to on, or bind "
            "127.0.0.1"
        )
    return Access(
        is_on=wish == "on",
        limits_on=(settings.gateway_limits or wish) == "on",
        trusted=trusted,
        tokens=tokens,
    )


def check_somebody_may_call(access: Access, keys: int) -> None:
    """Raise AccessMisconfigured where access is on and nobody has a way in: no key was ever made, no token is taken."""
    if access.is_on and not keys and access.tokens is None:
        raise AccessMisconfigured(
            "the gateway asks who calls, and nobody could say: make a key with `llmops key create OWNER`, or name an "
            "issuer of tokens (LLMOPS_JWT_ISSUER, LLMOPS_JWT_AUDIENCE, and LLMOPS_JWT_JWKS or LLMOPS_JWT_SECRET_FILE). "
            "On loopback LLMOPS_GATEWAY_ACCESS=off opens it to every program of this machine"
        )


def _tokens(settings: Settings, policy: AccessPolicy) -> Tokens | None:
    try:
        secret = settings.jwt_key
    except OSError as error:
        raise AccessMisconfigured(f"LLMOPS_JWT_SECRET_FILE cannot be read: {error}") from error
    named = {"LLMOPS_JWT_ISSUER": settings.jwt_issuer, "LLMOPS_JWT_AUDIENCE": settings.jwt_audience}
    if secret is None and settings.jwt_jwks is None:
        if given := [name for name, value in named.items() if value]:
            raise AccessMisconfigured(
                f"{' and '.join(given)} without keys to check tokens by: set LLMOPS_JWT_JWKS or LLMOPS_JWT_SECRET_FILE"
            )
        return None
    if missing := [name for name, value in named.items() if not value]:
        raise AccessMisconfigured(
            f"tokens are taken, and {' and '.join(missing)} is not set: a token that was made for another service "
            "would open this one"
        )
    try:
        jwks = None
        if settings.jwt_jwks is not None:
            check_source(settings.jwt_jwks)
            jwks = Jwks(settings.jwt_jwks)
        return Tokens(
            policy, issuer=str(settings.jwt_issuer), audience=str(settings.jwt_audience), secret=secret, jwks=jwks
        )
    except KeysUnusable as error:
        raise AccessMisconfigured(f"LLMOPS_JWT_JWKS: {error}") from error
    except ValueError as error:
        raise AccessMisconfigured(f"LLMOPS_JWT_SECRET: {error}") from error
