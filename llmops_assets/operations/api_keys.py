"""API keys of the gateway: made, listed, revoked."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from llmops_assets.operations.access import Actor, allowed, authorise, refuse_beyond
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.specs.access import CALL
from llmops_assets.wiring import Wiring
from resources.catalog import ApiKey
from resources.catalog.api_keys import digest_of, looks_like_key


@dataclass(frozen=True)
class KeyWish:
    """What a new key shall be; what is None does not restrict. `valid_for` is from now on."""

    owner: str
    role: str = "viewer"
    team: str | None = None
    endpoints: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    monthly_tokens: int | None = None
    valid_for: timedelta | None = None
    note: str = ""


def create_key(wiring: Wiring, actor: str, wish: KeyWish) -> tuple[ApiKey, str]:
    """Make a key; what is on record of it, and the key itself, which can never be shown again.

    Raises Refused for a role that the policy has not, or that may call no endpoint, and for what makes no sense, and
    Forbidden for a role that may do what the actor may not, or, under `access.four_eyes`, for the name of somebody
    else. Endpoints need not be there yet.
    """
    authorise(wiring, actor, "key.create")
    table = wiring.policy.access
    if wish.role not in table.roles:
        raise Refused(f"there is no role {wish.role!r} in the policy; there are {', '.join(table.roles)}")
    if not table.allows([wish.role], CALL):
        raise Refused(f"role {wish.role!r} may not do {CALL}: such a key would open nothing. Choose another role")
    if not wish.owner.strip():
        raise Refused("a key needs an owner: who answers for what is done with it")
    refuse_beyond(wiring, actor, [wish.role], f"make a key of the role {wish.role}")
    _refuse_second_name(wiring, actor, wish)
    if wish.endpoints is not None and (not wish.endpoints or not all(name.strip() for name in wish.endpoints)):
        raise Refused("endpoints should name at least one; leave them out for all that the role may call")
    for name, value in (("requests_per_minute", wish.requests_per_minute), ("monthly_tokens", wish.monthly_tokens)):
        if value is not None and not 1 <= value < 2**31:
            raise Refused(f"{name} {value} should be from 1 to {2**31 - 1}; leave it out for the policy's")
    if wish.valid_for is not None and not timedelta(0) < wish.valid_for <= timedelta(days=3650):
        raise Refused(
            "a key is valid for more than nothing, and ten years at most; leave it out for one without an end"
        )
    return wiring.catalog.api_keys.create(
        actor,
        owner=wish.owner,
        role=wish.role,
        team=wish.team,
        endpoints=wish.endpoints,
        requests_per_minute=wish.requests_per_minute,
        monthly_tokens=wish.monthly_tokens,
        expires_at=None if wish.valid_for is None else datetime.now(UTC) + wish.valid_for,
        note=wish.note,
    )


def _refuse_second_name(wiring: Wiring, actor: str, wish: KeyWish) -> None:
    """Raise Forbidden where somebody would get a second name, and two of the four eyes with it.

    Whoever may make users gives out names anyway.
    """
    if not wiring.policy.access.four_eyes or wish.owner == str(actor) or allowed(wiring, actor, "user.create"):
        return
    raise Forbidden(
        f"{str(actor)!r} may not make a key in the name of {wish.owner!r}: by the policy (access.four_eyes) two people "
        "have to decide, and it would make one of them two. Whoever may do user.create can"
    )


def list_keys(wiring: Wiring, actor: str) -> Sequence[ApiKey]:
    """All keys, newest first: whose each is, and what it may do."""
    authorise(wiring, actor, "key.list")
    return wiring.catalog.api_keys.all()


def revoke_key(wiring: Wiring, actor: str, id: str) -> tuple[ApiKey, bool]:
    """End a key for good; what is on record, and False where it was revoked before. NotFound for an unknown one.

    A running gateway refuses it within a second or two.
    """
    authorise(wiring, actor, "key.revoke")
    is_changed = wiring.catalog.api_keys.revoke(actor, id)
    return wiring.catalog.api_keys.get(id), is_changed


def actor_of(wiring: Wiring, secret: str) -> Actor:
    """Who acts by an API key, with its role; raises Refused for one that is not valid."""
    key = holder_of(wiring, secret)
    if key is None:
        raise Refused("LLMOPS_ACTOR_KEY is no key that is valid here: it is unknown, revoked or expired")
    return Actor(key.owner, [key.role])


def holder_of(wiring: Wiring, secret: str) -> ApiKey | None:
    """The key that a secret is, while it is valid; None for every other text."""
    if not looks_like_key(secret):
        return None
    digest, at = digest_of(secret), datetime.now(UTC)
    keys = (key for key in wiring.catalog.api_keys.usable() if hmac.compare_digest(key.sha256, digest))
    return next((key for key in keys if key.state(at) == "valid"), None)
