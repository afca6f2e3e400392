"""Who may do what: roles as a table of role × action, what of a token's claims they are read from, and usual limits."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import Field, model_validator

from llmops_assets.specs.base import Float, Int, Part, Text

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "dataset": ("register", "tag", "rollback", "forget", "download"),
    "suite": ("archive", "restore"),
    "prompt": ("add", "promote"),
    "training": ("request", "stop"),
    "base": ("register", "approve", "archive"),
    "model": ("approve", "stage", "promote", "archive", "parity", "download", "state"),
    "index": ("build", "query"),
    "endpoint": ("want", "delete", "call"),
    "experiment": ("create", "stop", "conclude", "extend"),
    "keys": ("rotate",),
    "key": ("create", "list", "revoke"),
    "user": ("create", "list", "role", "password", "disable", "enable"),
    "dagster": ("view", "launch"),
    "mlflow": ("view", "change"),
    "review": ("decide", "export"),
    "usage": ("read",),
    "audit": ("read",),
    "backup": ("make", "restore", "verify"),
    "upgrade": ("rehearse", "run"),
    "run": ("prune",),
    "alert": ("read", "ack"),
}
"""What can be asked of the platform, by what it is done to; the audit log names them the same way."""

PAGES = ("dagster.view", "mlflow.view")
"""Looking at the pages of Dagster and MLflow."""

CALL = "endpoint.call"
"""Asking an endpoint's model, and rating what it answered."""

READ_TEXTS = "review.decide"
"""Reading what users wrote and what they were answered: whoever decides on answers, and nobody else."""

FOUR_EYES = ("base.approve", "model.approve", "model.stage", "model.promote")
"""Steps that can be kept from whoever brought a model about; promoting is by a deployment or an A/B test, too."""

Roles = dict[Text, list[Text]]
"""The actions of each role: `AREA.VERB`, `AREA.*`, or `*`."""


def _default_roles() -> Roles:
    every = [f"{area}.*" for area in ACTIONS if area not in ("key", "keys", "backup", "upgrade", "user")]
    return {
        "viewer": [CALL, *PAGES],
        "data-scientist": [
            "prompt.*",
            CALL, "dataset.register", "dataset.tag", "dataset.rollback", "suite.*", "training.*", "base.register",
            "model.parity", "model.stage", "model.state", "experiment.*", "index.query", "review.*", "usage.read",
            *PAGES, "alert.*",
        ],
        "approver": [
            CALL, "base.*", "model.*", "experiment.conclude", "review.decide", "usage.read", *PAGES, "alert.read",
        ],
        "operator": [*every, "key.*"],
        "admin": ["*"],
    }  # fmt: skip


class Claims(Part):
    """Where a token says what; a dotted name is a path into nested objects (`realm_access.roles`)."""

    roles: Text = Field(default="roles", description="A text or a list of texts.")
    team: Text = Field(default="team", description="Whose usage it is.")
    endpoints: Text = Field(default="endpoints", description="Endpoints that it is for; without it, all of the roles'.")
    mapped_roles: dict[Text, Text] = Field(
        default_factory=dict, description="Role of the table by what a token calls it; others keep their name."
    )
    default_roles: list[Text] = Field(
        default_factory=list, description="Roles of a token that names none of the table; none by default."
    )
    leeway_seconds: Int = Field(default=30, ge=0, le=300, description="How far clocks may differ.")


class CallLimits(Part):
    """What one caller may ask of the gateway, where nothing else is said of it."""

    requests_per_minute: Int = Field(default=100, ge=1, description="Of one key or subject without a rate of its own.")
    requests_per_minute_per_address: Int = Field(
        default=100, ge=1, description="Of one address, by callers without a rate of their own, refused ones included."
    )
    monthly_tokens: Int | None = Field(
        default=None, ge=1, description="Of one subject of a token; keys have a budget of their own. Left out, any."
    )


class SessionRules(Part):
    """How long somebody is logged in at the console."""

    hours: Float = Field(default=12.0, gt=0, le=24 * 30, description="From the login on, whatever is done meanwhile.")
    idle_minutes: Float = Field(default=120.0, gt=0, le=24 * 60 * 30, description="Without a request.")
    password_length: Int = Field(default=12, ge=8, le=128, description="Characters of a password, at least.")


class AccessPolicy(Part):
    """Who may do what. One function decides, wherever it is asked: `allows`."""

    roles: Roles = Field(default_factory=_default_roles, description="Role × action.")
    sessions: SessionRules = Field(default_factory=SessionRules)
    four_eyes: list[Text] = Field(
        default_factory=list,
        description=f"Of {', '.join(FOUR_EYES)}: what nobody does with what they trained or submitted.",
    )
    claims: Claims = Field(default_factory=Claims)
    limits: CallLimits = Field(default_factory=CallLimits)

    @model_validator(mode="after")
    def _known(self) -> "AccessPolicy":
        for role, actions in self.roles.items():
            for action in actions:
                if fault := _fault_of(action):
                    raise ValueError(f"roles.{role}: {fault}")
        if strange := [action for action in self.four_eyes if action not in FOUR_EYES]:
            raise ValueError(f"four_eyes: {', '.join(strange)} is none of {', '.join(FOUR_EYES)}")
        named = [*self.claims.mapped_roles.values(), *self.claims.default_roles]
        for role in named:
            if role not in self.roles:
                raise ValueError(f"claims: there is no role {role!r}; there are {', '.join(self.roles)}")
        return self

    def allows(self, roles: Iterable[str], action: str) -> bool:
        """Whether one of `roles` may do `action` (`AREA.VERB`). A role that the table has not may do nothing."""
        area = action.partition(".")[0]
        return any(allowed in ("*", action, f"{area}.*") for role in roles for allowed in self.roles.get(role, ()))

    def actions_of(self, roles: Iterable[str]) -> frozenset[str]:
        """All that somebody with `roles` may do."""
        held = list(roles)
        every = (f"{area}.{verb}" for area, verbs in ACTIONS.items() for verb in verbs)
        return frozenset(action for action in every if self.allows(held, action))

    def roles_of(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """The roles that a token's claims give; those that the table has not are left out."""
        value = claim(claims, self.claims.roles)
        given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        named = {self.claims.mapped_roles.get(role, role) for role in given if isinstance(role, str)}
        return frozenset(named & self.roles.keys()) or frozenset(self.claims.default_roles)


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """What stands in a token under a name, or under a dotted path; None where nothing does.

    A name with dots of its own (`https://example.com/roles`) is looked for as it is first.
    """
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _fault_of(action: str) -> str | None:
    area, _, verb = action.partition(".")
    if action == "*" or (area in ACTIONS and verb in (*ACTIONS[area], "*")):
        return None
    known = [f"{area}.{verb}" for area, verbs in ACTIONS.items() for verb in (*verbs, "*")]
    close = get_close_matches(action, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"areas are {', '.join(ACTIONS)}"
    return f"there is no action {action!r}; {hint}"
