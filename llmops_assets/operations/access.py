"""Who may ask for what: the one place that every operation goes through before it changes anything."""

from collections.abc import Collection, Iterable

from llmops_assets.operations.errors import Forbidden, Unavailable
from llmops_assets.wiring import Wiring
from resources.cerbos import CerbosAway

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
    does at the gateway; or Cerbos, where one is named, and Unavailable is raised while it is away.
    """
    if not actor.strip():
        return False
    roles = _roles_of(actor) if roles is None else roles
    if _owns_machine(actor, roles):
        return True
    if wiring.cerbos is None:
        return wiring.policy.access.allows(roles, action)
    try:
        return wiring.cerbos.allows(str(actor), roles, action)
    except CerbosAway as error:
        raise Unavailable(str(error)) from error


def authorise(wiring: Wiring, actor: str, action: str, roles: Collection[str] | None = None) -> None:
    """Raise Forbidden when `actor` may not do `action`."""
    roles = _roles_of(actor) if roles is None else roles
    if not allowed(wiring, actor, action, roles):
        who = repr(str(actor)) if actor.strip() else "nobody (LLMOPS_ACTOR names who asks)"
        as_what = "" if _owns_machine(actor, roles) else f" as {', '.join(sorted(roles)) or 'somebody without a role'}"
        raise Forbidden(f"{who} may not do {action}{as_what}: ask someone who may")


def refuse_beyond(wiring: Wiring, actor: str, roles: Iterable[str], what: str) -> None:
    """Raise Forbidden when `roles` may do what `actor` may not: nobody gives out or takes away more than they have."""
    held = _roles_of(actor)
    if _owns_machine(actor, held):
        return
    table = wiring.policy.access
    if more := sorted(table.actions_of(roles) - table.actions_of(held)):
        raise Forbidden(f"{str(actor)!r} may not {what}: that goes with {', '.join(more[:5])}, which they may not do")


def _roles_of(actor: str) -> Collection[str]:
    return actor.roles if isinstance(actor, Actor) else OWN_MACHINE


def _owns_machine(actor: str, roles: Collection[str]) -> bool:
    """Whether it is the machine's owner; an `Actor` with the role of the same name is held to the policy's table."""
    return not isinstance(actor, Actor) and roles == OWN_MACHINE
