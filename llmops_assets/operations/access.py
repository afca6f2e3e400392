"""Who may ask for what: the one place that every operation goes through before it changes anything."""

from collections.abc import Collection, Iterable

from llmops_assets.operations.errors import Forbidden
from llmops_assets.wiring import Wiring

OWN_MACHINE = ("admin",)
"""The roles of whoever has the command on a machine: its home, its catalog and its secrets are theirs to read."""


class Actor(str):
    """Who asks, with the roles that a login gave: operations take one wherever they take the name of an actor.

    A plain text is whoever has the command on the machine.
    """

    __slots__ = ("roles",)
    roles: tuple[str, ...]

    def __new__(cls, name: str, roles: Iterable[str]) -> "Actor":
        actor = super().__new__(cls, name)
        actor.roles = tuple(sorted(roles))
        return actor


def allowed(wiring: Wiring, actor: str, action: str, roles: Collection[str] | None = None) -> bool:
    """Whether `actor`, who has `roles`, may do `action` (as the audit log names it, such as `training.request`).

    Without `roles`, those of an `Actor` count, and a plain text is whoever has the command on a machine: they may do
    everything on it, as long as the audit log can name them. Else the policy's table of role × action decides, as it
    does at the gateway.
    """
    if not actor.strip():
        return False
    roles = _roles_of(actor) if roles is None else roles
    return roles == OWN_MACHINE or wiring.policy.access.allows(roles, action)


def authorise(wiring: Wiring, actor: str, action: str, roles: Collection[str] | None = None) -> None:
    """Raise Forbidden when `actor` may not do `action`."""
    roles = _roles_of(actor) if roles is None else roles
    if not allowed(wiring, actor, action, roles):
        who = repr(actor) if actor.strip() else "nobody (LLMOPS_ACTOR names who asks)"
        as_what = "" if roles == OWN_MACHINE else f" as {', '.join(sorted(roles)) or 'somebody without a role'}"
        raise Forbidden(f"{who} may not do {action}{as_what}: ask someone who may")


def _roles_of(actor: str) -> Collection[str]:
    return actor.roles if isinstance(actor, Actor) else OWN_MACHINE
