"""What is asked of a deployment before its new servers get users, by check, in the order that it is asked in."""

from collections.abc import Callable
from dataclasses import dataclass, field

from llmops_assets.evaluation.llm_judge import JudgeError
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.serving import probing
from llmops_assets.serving.parity import Difference
from llmops_assets.verdict import Verdict
from resources.catalog import Backend
from resources.content import ContentChanged
from resources.dataset_store import DatasetStore
from resources.model_server import ModelServers, ServerError
from resources.records import Records

CHECKS = {
    "admitted": "The version's files are those that were registered, these very weights were evaluated, it was "
    "approved where that is asked for, and it is of the family and job type that the endpoint is for.",
    "template_parity": "The chat template of each served folder is the one that its model was trained and evaluated "
    "with.",
    "answers_as_evaluated": f"Asked {probing.COMPARED} questions of its evaluation, each new model server is shown the "
    "same prompt tokens and gives the same answers as there. An engine other than the evaluation's may round "
    "otherwise, so another answer only warns there; what no rounding explains fails: another prompt, answers that are "
    "cut, most answers other from the beginning.",
    "replayed": "Where the policy asks for it (serving.replay.required): asked what the endpoint's users asked in the "
    "last days, the model is not worse beyond chance than what they got, refuses no more, and says no personal data.",
}
"""Checks that stand between a healthy server and its users."""


@dataclass(frozen=True)
class Checked:
    """What one of the checks came to."""

    name: str
    verdict: Verdict
    differing: list[Difference] = field(default_factory=list)
    warn: bool = False


@dataclass
class BeforeTraffic:
    """Asks the new servers of one deployment; `known` names processes that passed before, `probed` who did now."""

    records: Records
    store: DatasetStore
    servers: ModelServers
    replayed: Callable[[RegisteredModelRecord, list[Backend]], Verdict] | None = None
    """None for a model that users have already."""
    known: list[str] = field(default_factory=list)
    results: list[Checked] = field(default_factory=list)
    probed: list[str] = field(default_factory=list)

    def note(self, name: str, verdict: Verdict) -> None:
        """Keep what a check came to that somebody else asked."""
        self.results.append(Checked(name, verdict))

    def refusal(self, model: RegisteredModelRecord, backends: list[Backend]) -> str | None:
        """Why these servers of `model` get no users; None where they may have them."""
        try:
            self.note("template_parity", probing.served_template(model, backends, self.records))
            probe = probing.answers_as_evaluated(
                model, backends, self.records, self.store, self.servers, known=self.known
            )
        except (ServerError, ContentChanged, OSError, LookupError) as error:
            # What cannot be asked is not known to be right.
            probe = probing.Probe(Verdict(False, str(error)))
        self.results.append(Checked("answers_as_evaluated", probe.verdict, probe.differing, warn=probe.may_be_rounding))
        if probe.verdict.passed:
            self.probed = [probing.probe_key(backend, model, self.records) for backend in backends]
        if self.replayed is not None and all(one.verdict.passed or one.warn for one in self.results):
            self.note("replayed", self._replayed(self.replayed, model, backends))
        failed = [f"{one.name}: {one.verdict.text}" for one in self.results if not one.verdict.passed and not one.warn]
        return "; ".join(failed) or None

    def _replayed(
        self,
        replayed: Callable[[RegisteredModelRecord, list[Backend]], Verdict],
        model: RegisteredModelRecord,
        backends: list[Backend],
    ) -> Verdict:
        try:
            return replayed(model, backends)
        except (ServerError, JudgeError, OSError) as error:
            # Where it is asked for, what cannot be replayed is not known to be good.
            return Verdict(False, f"what users asked could not be replayed: {error}")
