"""Who asks: an API key or a trusted proxy says it, or the installation is one person's on one machine."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from images.console.problems import Problem
from llmops_assets.operations.access import Actor

USER, ROLES = "x-user-id", "x-user-roles"
NEEDED_ROLE = "llm-ops-user"
"""The role that a proxy's users have to have."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
    loopback alone; None refuses it.
    """

    keys: Callable[[str], tuple[str, str] | None]
    roles_of: Callable[[frozenset[str]], frozenset[str]]
    trusted: Sequence[Network] = ()
    open_to: str | None = None

    def identify(self, peer: str | None, headers: Mapping[str, str]) -> Caller:
        """The sender of a request from the address `peer`; raises Problem 401 or 403."""
        _refuse_other_pages(headers)
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            found = self.keys(token.strip())
            if found is None:
                raise Problem(401, "this key is not known here, revoked or expired", **{"WWW-Authenticate": "Bearer"})
            return Caller(found[0], frozenset({found[1]}))
        is_own = self.open_to is not None and _names_loopback(headers.get("host", ""))
        user = headers.get(USER, "").strip()
        if user and self._is_trusted(peer):
            if len(user) > 200 or not user.isprintable():
                raise Problem(401, "X-User-Id should be a printable text of at most 200 characters")
            words = frozenset(filter(None, (role.strip() for role in headers.get(ROLES, "").split(","))))
            if NEEDED_ROLE not in words:
                raise Problem(403, f"X-User-Roles of {user!r} should hold {NEEDED_ROLE}: ask who gives out roles")
            # On a machine of one's own the roles say nothing that its owner could not say too.
            return Caller(user, self.roles_of(words) or (None if is_own else frozenset()))
        if is_own:
            return Caller(self.open_to or "")
        why = "X-User-Id is believed from the proxies of LLMOPS_TRUSTED_PROXIES alone" if user else "say who asks"
        raise Problem(401, f"this needs a login: {why}", **{"WWW-Authenticate": "Bearer"})

    def _is_trusted(self, peer: str | None) -> bool:
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self.trusted)


def _refuse_other_pages(headers: Mapping[str, str]) -> None:
    """Raise Problem 403 for a request that the page of another site made in somebody's browser."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Problem(403, f"a page of {origin[:200]} may not ask for this")


def _names_loopback(host: str) -> bool:
    """Whether a request was sent to this machine's own name, and not to one that somebody else points here."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def networks(text: str) -> list[Network]:
    """Networks from a text with commas; raises ValueError naming the one that is none."""
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError as error:
            raise ValueError(f"LLMOPS_TRUSTED_PROXIES: {part!r} is no address and no network: {error}") from error
    return found
