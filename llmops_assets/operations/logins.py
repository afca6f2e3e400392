"""Logging in at the console and out again: by a password of ours, or at a provider."""

import logging
import secrets
from datetime import UTC, datetime, timedelta

from llmops_assets.operations import passwords
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Forbidden, Refused, Unavailable
from llmops_assets.operations.users import fault_of_name
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, User
from resources.catalog.sessions import Begun
from resources.oidc import LoginRefused, Provider, ProviderAway

log = logging.getLogger("access.logins")


class NotLoggedIn(Forbidden):
    """It was not the right password, or not a user of ours; which of the two is not said."""


class TooManyTries(Unavailable):
    """So many wrong passwords were tried that none is looked at for a while."""


def log_in(wiring: Wiring, name: str, password: str, *, instead_of: str | None = None) -> str:
    """The secret of a new session of whoever knows the password of `name`; the session `instead_of` ends.

    Raises NotLoggedIn, or TooManyTries after many wrong passwords, right or wrong as this one may be.
    """
    try:
        return _log_in(wiring, name, password, instead_of)
    except passwords.TooBusy as error:
        raise TooManyTries(f"{error}: try again in a moment") from error


def _log_in(wiring: Wiring, name: str, password: str, instead_of: str | None) -> str:
    users = wiring.catalog.users
    user = users.find(name)
    if user is not None:
        _refuse_while_waiting(user)
    kept = user.password_hash if user is not None else None
    if user is None or not passwords.is_right(password, kept) or kept is None:
        if user is None:
            # What was typed may be a password.
            passwords.is_right(password, None)
            log.warning("a login failed: there is no such user")
        else:
            users.failed(user.name)
        raise NotLoggedIn("this name and this password do not belong together")
    if user.disabled_at is not None:
        raise NotLoggedIn("this name and this password do not belong together")
    if passwords.is_old(kept):
        users.keep_hash(user.name, kept, passwords.hash_of(password))
    return _start(wiring, user, frozenset(), instead_of, "password")


def holder_of_session(wiring: Wiring, secret: str) -> Actor | None:
    """Who holds a session, with their roles of this moment; None for every other text."""
    idle = timedelta(minutes=wiring.policy.access.sessions.idle_minutes)
    found = wiring.catalog.sessions.find(secret, idle)
    return None if found is None else Actor(found.user, found.roles & wiring.policy.access.roles.keys())


def log_out(wiring: Wiring, secret: str) -> bool:
    """End a session; False where there is none."""
    return wiring.catalog.sessions.end(secret)


def begin_at_provider(wiring: Wiring, provider: Provider, target: str) -> tuple[str, str]:
    """The provider's address to send a browser to, and a secret for the browser, by which it is known when it is back.

    `target` is the page that was asked for. Raises Unavailable where the provider does not answer.
    """
    state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    begun = Begun(nonce=secrets.token_urlsafe(32), verifier=secrets.token_urlsafe(48), target=target)
    try:
        address = provider.address(state, begun.nonce, begun.verifier)
    except ProviderAway as error:
        raise Unavailable(str(error)) from error
    wiring.catalog.sessions.begin(state, browser, begun)
    return address, browser


def finish_at_provider(
    wiring: Wiring, provider: Provider, answer: dict[str, str], browser: str, *, instead_of: str | None = None
) -> tuple[str, str]:
    """The secret of a new session, and the page that was asked for, of whoever comes back from the provider.

    `answer` is what the provider sent with them. Raises NotLoggedIn, saying what is wrong, or Unavailable.
    """
    begun = wiring.catalog.sessions.finish(answer.get("state", ""), browser)
    if begun is None:
        raise NotLoggedIn("this login was not begun in this browser, or took too long: begin again")
    try:
        claims = provider.claims(answer, begun.nonce, begun.verifier)
    except ProviderAway as error:
        raise Unavailable(str(error)) from error
    except LoginRefused as error:
        raise NotLoggedIn(str(error)) from error
    name, subject = claims.get(provider.user_claim), claims["sub"]
    if not isinstance(name, str) or (fault := fault_of_name(name)) is not None:
        why = fault if isinstance(name, str) else f"it says no {provider.user_claim}"
        raise NotLoggedIn(f"the provider does not say who this is here: {why} (LLMOPS_OIDC_USER_CLAIM)")
    try:
        user = wiring.catalog.users.bind(name, provider.issuer, subject)
    except Conflict as error:
        raise NotLoggedIn(f"{name!r} is somebody else here: ask an administrator") from error
    access = wiring.policy.access
    roles = access.roles_of(claims)
    if user.disabled_at is not None:
        raise NotLoggedIn(f"{user.name!r} may not log in here any more")
    if not roles | (frozenset(user.roles) & access.roles.keys()):
        raise NotLoggedIn(f"{user.name!r} has no role here: ask an administrator for one (llmops user role)")
    return _start(wiring, user, roles, instead_of, provider.issuer), begun.target


def own_password(wiring: Wiring, actor: Actor, old: str, new: str) -> None:
    """Change the password of whoever asks; all their sessions end. Raises NotLoggedIn or Refused."""
    user = wiring.catalog.users.get(str(actor))
    if user.password_hash is None:
        raise Refused(f"{user.name!r} logs in at {user.issuer}, where the password is")
    _refuse_while_waiting(user)
    if not passwords.is_right(old, user.password_hash):
        wiring.catalog.users.failed(user.name)
        raise NotLoggedIn("this is not the password until now")
    fault = passwords.fault_of(new, user.name, wiring.policy.access.sessions.password_length)
    if fault is not None:
        raise Refused(fault)
    wiring.catalog.users.set_password(user.name, user.name, passwords.hash_of(new))


def _refuse_while_waiting(user: User) -> None:
    if user.waits_until is not None and user.waits_until > datetime.now(UTC):
        raise TooManyTries("too many wrong passwords: try again in a while")


def _start(wiring: Wiring, user: User, roles: frozenset[str], instead_of: str | None, how: str) -> str:
    hours = wiring.policy.access.sessions.hours
    return wiring.catalog.sessions.start(user, roles, hours, instead_of=instead_of, how=how)
