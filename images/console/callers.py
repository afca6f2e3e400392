"""Who asks: an API key, a session or a trusted proxy says it, or the installation is one person's on one machine."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from images.console.problems import Problem
from llmops_assets.operations.access import Actor

USER, ROLES = "x-user-id", "x-user-roles"
NEEDED_ROLE = "llm-ops-user"
"""The role that a proxy's users have to have."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Caller:
    """Who asks, for the audit log; `roles` are those of the policy's table, None for the owner of the machine."""

    user: str
    roles: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """The actor that operations take."""
        return self.user if self.roles is None else Actor(self.user, self.roles)


@dataclass(frozen=True)
class Callers:
    """Tells who sent a request.

    `keys` finds the owner and the role of an API key, None for one that is not valid. `trusted` are the networks whose
    `X-User-Id` and `X-User-Roles` are believed: a proxy that has logged the user in; `roles_of` gives the roles of the
    policy that its words mean. `open_to` is who a request without either comes from, where the server is bound to
    loopback alone; None refuses it. `sessions` finds who holds the session of a cookie named `cookie`; `has_users`
    says whether there is somebody to log in, from which moment on nobody is let in without.
    """

    keys: Callable[[str], tuple[str, str] | None]
    roles_of: Callable[[frozenset[str]], frozenset[str]]
    trusted: Sequence[Network] = ()
    open_to: str | None = None
    sessions: Callable[[str], Actor | None] = lambda _secret: None
    cookie: str = "llmops-session"
    has_users: Callable[[], bool] = lambda: False

    def identify(self, peer: str | None, headers: Mapping[str, str], method: str = "GET") -> Caller:
        """The sender of a request from the address `peer`; raises Problem 401 or 403."""
        refuse_other_pages(headers)
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            found = self.keys(token.strip())
            if found is None:
                raise Problem(401, "this key is not known here, revoked or expired", **{"WWW-Authenticate": "Bearer"})
            return Caller(found[0], frozenset({found[1]}))
        if (secret := cookie_of(headers, self.cookie)) is not None and (holder := self.sessions(secret)) is not None:
            if method not in _SAFE:
                refuse_unknown_pages(headers)
            return Caller(str(holder), frozenset(holder.roles))
        user = _text(headers.get(USER, "")).strip()
        is_own = self._is_own(headers)
        if user and self._is_trusted(peer):
            if len(user) > 200 or not user.isprintable():
                raise Problem(401, "X-User-Id should be a printable text of at most 200 characters")
            words = frozenset(filter(None, (role.strip() for role in _text(headers.get(ROLES, "")).split(","))))
            if NEEDED_ROLE not in words:
                raise Problem(403, f"X-User-Roles of {user!r} should hold {NEEDED_ROLE}: ask who gives out roles")
            # On a machine of one's own the roles say nothing that its owner could not say too.
            return Caller(user, self.roles_of(words) or (None if is_own else frozenset()))
        if is_own:
            return Caller(self.open_to or "")
        why = "X-User-Id is believed from the proxies of LLMOPS_TRUSTED_PROXIES alone" if user else "say who asks"
        raise Problem(401, f"this needs a login: {why}", **{"WWW-Authenticate": "Bearer"})

    def _is_own(self, headers: Mapping[str, str]) -> bool:
        """Whether a request can only be of somebody who may run the command here, too."""
        if self.open_to is None or not _names_loopback(headers.get("host", "")):
            return False
        # A reverse proxy of this machine sends on what others ask.
        return not any(name in headers for name in _FORWARDED) and not self.has_users()

    def _is_trusted(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self.trusted)


def _text(value: str) -> str:
    """A header's value: bytes, which are read as Latin-1, and are UTF-8 where a name is in Hangul."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def cookie_of(headers: Mapping[str, str], name: str) -> str | None:
    """The value of a cookie; None where there is none, or the header cannot be read."""
    try:
        found = SimpleCookie(headers.get("cookie", "")[:8192]).get(name)
    except CookieError:
        return None
    return found.value if found is not None and found.value else None


def refuse_other_pages(headers: Mapping[str, str]) -> None:
    """Raise Problem 403 for a request that the page of another site made in somebody's browser."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Problem(403, f"a page of {origin[:200]} may not ask for this")


def refuse_unknown_pages(headers: Mapping[str, str]) -> None:
    """Raise Problem 403 for a change that a browser's cookie stands behind, and no page of ours.

    Every browser names the page that changes something: by `Origin`, or by `Sec-Fetch-Site`.
    """
    if headers.get("origin") is None and headers.get("sec-fetch-site") != "same-origin":
        raise Problem(403, "no page of the console asks for this: a program should send an API key")


def _names_loopback(host: str) -> bool:
    """Whether a request was sent to this machine's own name, and not to one that somebody else points here."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return host.partition(":")[0] == "localhost"


def networks(text: str) -> list[Network]:
    """Networks from a text with commas; raises ValueError naming the one that is none."""
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError as error:
            raise ValueError(f"LLMOPS_TRUSTED_PROXIES: {part!r} is no address and no network: {error}") from error
    return found
