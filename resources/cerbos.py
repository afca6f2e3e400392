"""Cerbos as the place where it is decided who may do what: asked over its HTTP interface, with nothing kept."""

from collections.abc import Iterable

_SECONDS = 3.0


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

        held, by_area = sorted(roles), dict[str, list[str]]()
        for action in actions:
            area, _, verb = action.partition(".")
            by_area.setdefault(area, []).append(verb)
        if not held or not by_area:
            return frozenset()
        asked = [{"resource": {"kind": area, "id": area}, "actions": verbs} for area, verbs in by_area.items()]
        body = {"principal": {"id": who, "roles": held}, "resources": asked}
        try:
            answer = httpx.post(
                f"{self.url}/api/check/resources", json=body, headers=self._headers, timeout=_SECONDS, trust_env=False
            )
            answer.raise_for_status()
            results = answer.json()["results"]
            return frozenset(
                f"{result['resource']['kind']}.{verb}"
                for result in results
                for verb, effect in result["actions"].items()
                if effect == "EFFECT_ALLOW" and verb in by_area.get(result["resource"]["kind"], ())
            )
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CerbosAway(f"Cerbos at {self.url} does not answer: {type(error).__name__}") from error
