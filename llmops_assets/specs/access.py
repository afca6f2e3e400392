"""Who may do what: roles as a table of role × action, what of a token's claims they are read from, and usual limits."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import Field, model_validator

from llmops_assets.specs.base import Int, Part, Text

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "dataset": ("register", "tag", "rollback", "forget"),
    "suite": ("archive", "restore"),
    "prompt": ("add", "promote"),
    "training": ("request", "stop"),
    "base": ("register", "approve", "archive"),
    "model": ("approve", "stage", "promote", "archive", "parity", "download"),
    "index": ("build", "query"),
    "endpoint": ("want", "delete", "call"),
    "experiment": ("create", "stop", "conclude", "extend"),
    "keys": ("rotate",),
    "key": ("create", "list", "revoke"),
    "review": ("decide", "export"),
    "usage": ("read",),
    "audit": ("read",),
    "backup": ("make", "restore", "verify"),
    "run": ("prune",),
}
"""What can be asked of the platform, by what it is done to; the audit log names them the same way."""

CALL = "endpoint.call"
"""Asking an endpoint's model, and rating what it answered."""

Roles = dict[Text, list[Text]]
"""The actions of each role: `AREA.VERB`, `AREA.*`, or `*`."""


def _default_roles() -> Roles:
    every = [f"{area}.*" for area in ACTIONS if area not in ("key", "keys", "backup")]
    return {
        "viewer": [CALL],
        "data-scientist": [
            "prompt.*",
            CALL, "dataset.register", "dataset.tag", "dataset.rollback", "suite.*", "training.*", "base.register",
            "model.parity", "model.stage", "experiment.*", "index.query", "review.*", "usage.read",
        ],
        "approver": [CALL, "base.*", "model.*", "experiment.conclude", "review.decide", "usage.read"],
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


class AccessPolicy(Part):
    """Who may do what. One function decides, wherever it is asked: `allows`."""

    roles: Roles = Field(default_factory=_default_roles, description="Role × action.")
    claims: Claims = Field(default_factory=Claims)
    limits: CallLimits = Field(default_factory=CallLimits)

    @model_validator(mode="after")
    def _known(self) -> "AccessPolicy":
        for role, actions in self.roles.items():
            for action in actions:
                if fault := _fault_of(action):
                    raise ValueError(f"roles.{role}: {fault}")
        named = [*self.claims.mapped_roles.values(), *self.claims.default_roles]
        for role in named:
            if role not in self.roles:
                raise ValueError(f"claims: there is no role {role!r}; there are {', '.join(self.roles)}")
        return self

    def allows(self, roles: Iterable[str], action: str) -> bool:
        """Whether one of `roles` may do `action` (`AREA.VERB`). A role that the table has not may do nothing."""
        area = action.partition(".")[0]
        return any(allowed in ("*", action, f"{area}.*") for role in roles for allowed in self.roles.get(role, ()))

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
