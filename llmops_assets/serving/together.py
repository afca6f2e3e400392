"""What changes together with an endpoint's routes when it goes back to what it served before: prompt and index."""

from dataclasses import dataclass
from typing import Any, Literal

from llmops_assets.records.prompts import ResolvedPrompt
from llmops_assets.specs.prompt import Prompt
from resources.catalog import Catalog, Intent
from resources.gateway import GatewayAdmin, GatewayError
from resources.prompts import Prompts, UnknownPrompt
from resources.retrieval.engine import EngineUnavailable
from resources.retrieval.indexes import IndexCorrupt, Indexes
from resources.tracking import Tracking

BACK_TO = "back_to"
"""Key of a `deploy` intent's detail: the prompt (NAME, VERSION) and the index (NAME, VERSION) that it is to bring."""


class Gone(LookupError):
    """A prompt or an index that is to be served again is not there any more; the message says which."""


@dataclass(frozen=True)
class Together:
    """A prompt (None: none) and the version that an index's name is to stand for; by default both stay as they are."""

    prompt: ResolvedPrompt | Literal["as it is"] | None = "as it is"
    index: tuple[str, str] | None = None
    indexes: Indexes | None = None

    def bound(self, endpoint: str, catalog: Catalog, gateway: GatewayAdmin) -> "Switch":
        """The switch of one endpoint."""
        return Switch(self, endpoint, catalog, gateway, catalog.prompts.all().get(endpoint))


@dataclass
class Switch:
    """Changes an endpoint's routes and what goes with them, and puts all of it back."""

    together: Together
    endpoint: str
    catalog: Catalog
    gateway: GatewayAdmin
    prompt_before: ResolvedPrompt | None
    index_before: str | None = None

    def to(self, routes: list[dict[str, Any]]) -> int:
        """The phase that this opens. The index comes first, then prompt and routes in one transaction.

        Raises GatewayError where the gateway does not follow, or the index cannot be changed.
        """
        self._point()
        return self.gateway.set_routes(self.endpoint, routes, prompt=self.together.prompt)

    def back(self, routes: list[dict[str, Any]]) -> int:
        """Put routes, prompt and index back; the phase that this opens."""
        index, before = self.together.index, self.index_before
        if index is not None and self.together.indexes is not None and before is not None:
            self.together.indexes.point(index[0], before)
            self._note(index[0], before, index[1])
        self.index_before = None
        prompt = self.prompt_before if self.together.prompt != "as it is" else "as it is"
        return self.catalog.set_routes(self.endpoint, routes, "rollback", prompt=prompt)

    def _point(self) -> None:
        index, indexes = self.together.index, self.together.indexes
        if index is None or indexes is None:
            return
        try:
            self.index_before = indexes.point(*index)
        except (EngineUnavailable, IndexCorrupt) as error:
            raise GatewayError(f"the index {index[0]} cannot be brought back to {index[1]}: {error}") from error
        if self.index_before != index[1]:
            self._note(*index, self.index_before)

    def _note(self, name: str, version: str, previous: str | None) -> None:
        facts = self.together.indexes.facts(version) if self.together.indexes is not None else None
        dataset = facts.dataset if facts is not None else None
        self.catalog.log("deployment", "index.publish", name, version=version, dataset=dataset, previous=previous)


def together_of(intent: Intent | None, tracking: Tracking, indexes: Indexes) -> Together:
    """What a deployment changes together with the routes, by the intent that it acts on.

    An index in a Qdrant server is written there anew where it is no longer. Raises Gone.
    """
    wanted = intent.detail.get(BACK_TO) if intent is not None and intent.is_open else None
    if wanted is None:
        return Together()
    prompt, index = wanted.get("prompt"), wanted.get("index")
    try:
        resolved = Prompts(tracking).resolve(Prompt(name=prompt[0], version=prompt[1])) if prompt else None
        if index:
            indexes.stage(indexes.read(index[1]))
    except (UnknownPrompt, IndexCorrupt, EngineUnavailable) as error:
        raise Gone(str(error)) from error
    return Together(resolved, (index[0], index[1]) if index else None, indexes)


def waits_for_its_run(intent: Intent | None) -> bool:
    """Whether an endpoint's prompt is changed by the run that goes back, and by nothing else: it has not, or failed."""
    return intent is not None and BACK_TO in intent.detail and intent.outcome != "done"
