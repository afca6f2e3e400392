"""Who may ask for what: the one place that every operation goes through before it changes anything."""

from llmops_assets.operations.errors import Forbidden
from llmops_assets.wiring import Wiring


def allowed(wiring: Wiring, actor: str, action: str) -> bool:
    """Whether `actor` may do `action` (as the audit log names it, such as `training.request`).

    Whoever has the command on a machine may do everything on it, as long as the audit log can name them.
    """
    return bool(actor.strip())


def authorise(wiring: Wiring, actor: str, action: str) -> None:
    """Raise Forbidden when `actor` may not do `action`."""
    if not allowed(wiring, actor, action):
        who = repr(actor) if actor.strip() else "nobody (LLMOPS_ACTOR names who asks)"
        raise Forbidden(f"{who} may not do {action}: ask someone who may")
