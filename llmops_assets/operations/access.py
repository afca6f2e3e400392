"""Who may ask for what: the one place that every operation goes through before it changes anything."""

from collections.abc import Collection

from llmops_assets.operations.errors import Forbidden
from llmops_assets.wiring import Wiring

OWN_MACHINE = ("admin",)
"""The roles of whoever has the command on a machine: its home, its catalog and its secrets are theirs to read."""


def allowed(wiring: Wiring, actor: str, action: str, roles: Collection[str] = OWN_MACHINE) -> bool:
    """Whether `actor`, who has `roles`, may do `action` (as the audit log names it, such as `training.request`).

    The policy's table of role × action decides, as it does at the gateway. Whoever has the command on a machine may do
    everything on it, as long as the audit log can name them.
    """
    if not actor.strip():
        return False
    return roles == OWN_MACHINE or wiring.policy.access.allows(roles, action)


def authorise(wiring: Wiring, actor: str, action: str, roles: Collection[str] = OWN_MACHINE) -> None:
    """Raise Forbidden when `actor` may not do `action`."""
    if not allowed(wiring, actor, action, roles):
        who = repr(actor) if actor.strip() else "nobody (LLMOPS_ACTOR names who asks)"
        as_what = "" if roles == OWN_MACHINE else f" as {', '.join(sorted(roles)) or 'somebody without a role'}"
        raise Forbidden(f"{who} may not do {action}{as_what}: ask someone who may")
