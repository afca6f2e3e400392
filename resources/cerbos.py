"""Cerbos as the place where it is decided who may do what: asked over its HTTP interface, with nothing kept."""

from collections.abc import Iterable
from typing import Any

ANSWER_SECONDS = 3.0
"""So long an answer is waited for."""


class CerbosAway(Exception):
    """Cerbos does not answer, or not as Cerbos does: nobody may do anything meanwhile."""


class Cerbos:
    """A policy decision point at a URL, which has the policies that `llmops access cerbos` writes.

    An action `AREA.VERB` is asked for as the action VERB on the resource kind AREA.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def allows(self, who: str, roles: Iterable[str], action: str) -> bool:
        """Whether `who`, who has `roles`, may do `action`; raises CerbosAway."""
        return action in self.allowed(who, roles, [action])

    def allowed(self, who: str, roles: Iterable[str], actions: Iterable[str]) -> frozenset[str]:
        """Those of `actions` that `who` may do; raises CerbosAway."""
        # Imported where it is asked: most commands never do.
        import httpx

        actions, roles = list(actions), list(roles)
        if not roles or not actions:
            return frozenset()
        body = question_of(who, roles, actions)
        try:
            answer = httpx.post(
                f"{self.url}/api/check/resources",
                json=body,
                headers=self._headers,
                timeout=ANSWER_SECONDS,
                trust_env=False,
            )
            answer.raise_for_status()
            return allowed_of(answer.json(), actions)
        except (httpx.HTTPError, ValueError) as error:
            raise CerbosAway(f"Cerbos at {self.url} does not answer: {type(error).__name__}") from error


def question_of(who: str, roles: Iterable[str], actions: Iterable[str]) -> dict[str, Any]:
    """The body of a request to `/api/check/resources`: which of `actions` (`AREA.VERB`) `who` may do."""
    by_area = dict[str, list[str]]()
    for action in actions:
        area, _, verb = action.partition(".")
        by_area.setdefault(area, []).append(verb)
    asked = [{"resource": {"kind": area, "id": area}, "actions": verbs} for area, verbs in by_area.items()]
    return {"principal": {"id": who, "roles": sorted(roles)}, "resources": asked}


def allowed_of(answer: Any, actions: Iterable[str]) -> frozenset[str]:
    """Those of `actions` that Cerbos' answer allows; raises ValueError for what is no answer of Cerbos."""
    asked = frozenset(actions)
    try:
        allowed = frozenset(
            f"{result['resource']['kind']}.{verb}"
            for result in answer["results"]
            for verb, effect in result["actions"].items()
            if effect == "EFFECT_ALLOW"
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"that is no answer of Cerbos: {error!r}") from error
    return allowed & asked
