"""Asks model servers what their models' evaluation asked: before they get users, and through the gateway."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.serving import foreign_lengths
from llmops_assets.serving.parity import Difference, answered_again, differences, no_rounding, summary, template_hash
from llmops_assets.serving.parity_probe import Sample, items_of
from llmops_assets.specs.names import training_key
from llmops_assets.verdict import Verdict
from resources.catalog import Backend
from resources.dataset_store import DatasetStore
from resources.gateway import GatewayAdmin
from resources.model_server import ModelServers
from resources.records import Records

COMPARED = 8
THROUGH_GATEWAY = 2
"""Questions that each server, and the gateway, is asked."""
ASKED_AGAIN = 4
"""Of them, those that a server of somebody else's is asked three times more."""


MOST_CUT = 0.5
"""Share of a model's answers that an endpoint may cut. Some are longer than is wanted; most are what was evaluated."""


@dataclass(frozen=True)
class Probe:
    """What servers answered: the verdict, what differs, and whether a difference may be mere rounding."""

    verdict: Verdict
    differing: list[Difference] = field(default_factory=list)
    may_be_rounding: bool = False

    @property
    def blocks(self) -> bool:
        """Whether the servers get no users for it."""
        return not self.verdict.passed and not self.may_be_rounding


def served_template(model: RegisteredModelRecord, backends: Sequence[Backend], records: Records) -> Verdict:
    """Whether each folder that is served carries the chat template that its model was trained and evaluated with."""
    merged = records.load(MergedModelRecord, training_key(model.dataset, model.recipe))
    served = {backend.id: template_hash(backend.model_path) or "none" for backend in backends}
    # A version whose cell was trained anew since has the template of its own files, which are held to their hash.
    is_known = merged.content_hash == model.content_hash or model.scheme is not None
    other = {found for found in served.values() if is_known and found != (merged.chat_template_hash or "none")}
    if not other:
        return Verdict(True, f"{model.ref} is served with the template of its training", {**served})
    return Verdict(
        False,
        f"{model.ref} is served with chat template {', '.join(sorted(other))}, but was trained with "
        f"{merged.chat_template_hash}: materialise `merged_model` of {model.dataset}|{model.recipe} again",
        {**served},
    )


def probe_key(backend: Backend, model: RegisteredModelRecord, records: Records) -> str:
    """Names a running process and what its answers are compared with: the same process answers alike."""
    evaluation = records.load(EvaluationRecord, training_key(model.dataset, model.recipe))
    asked = evaluation.answers_sha256 or evaluation.answers
    return f"{backend.id} {backend.pid} {backend.pid_started} {model.content_hash} {asked}"


def answers_as_evaluated(
    model: RegisteredModelRecord,
    backends: Sequence[Backend],
    records: Records,
    store: DatasetStore,
    servers: ModelServers,
    known: Iterable[str] = (),
) -> Probe:
    """Whether each server is shown the prompt tokens of its model's evaluation, and gives the same answers.

    Those of which `known` holds the `probe_key` passed before and are not asked again. Raises ServerError.
    """
    passed = set(known)
    # Of a server that somebody else runs nobody here knows whether it is still the same process.
    fresh = [b for b in backends if b.pid_started is None or probe_key(b, model, records) not in passed]
    if not fresh:
        return Probe(Verdict(True, "these very server processes answered as evaluated before", {"asked": 0}))
    sample = _sample(model, fresh, records, store)
    if sample.cut > MOST_CUT:
        return Probe(Verdict(False, _cut(model, fresh, sample), {"asked": 0}))
    if not sample.rows:
        return Probe(Verdict(True, sample.note, {"asked": 0}))
    for backend in fresh:
        lengths = foreign_lengths.refusal(backend, Path(model.path), sample, servers) if backend.kind == "url" else None
        if lengths is not None:
            return Probe(Verdict(False, lengths, {"asked": 0}))
    limit = {"max_tokens": sample.max_new_tokens, "token_ids": True}
    found: list[Difference] = []
    for backend in fresh:
        served = [servers.complete(backend, one, tools=tools, **limit) for one, tools in sample.conversations]
        found += differences(sample.rows, served)
        if backend.pid_started is None:
            found += _of_somebody_else(backend, sample, servers, limit)
    asked = len(fresh) * len(sample.rows)
    return Probe(Verdict(not found, summary(asked, found), {"asked": asked}), found, not _is_sure(fresh, asked, found))


def _of_somebody_else(
    backend: Backend, sample: Sample, servers: ModelServers, limit: Mapping[str, Any]
) -> list[Difference]:
    """What is odd of a server that somebody else started, asked a few questions twice in a row and once more without a
    word on sampling: ours are started greedy, and are one process each."""
    few = sample.conversations[:ASKED_AGAIN]
    questions = [row["prompt"] for row in sample.rows[: len(few)]]
    first, again, unsaid = [], [], []
    for one, tools in few:
        for answers, greedy in ((first, True), (again, True), (unsaid, False)):
            answers.append(servers.complete(backend, one, tools=tools, greedy=greedy, **limit))
    if found := answered_again("replica", first, again, questions):
        return found
    return answered_again("sampling", first, unsaid, questions)


def through_gateway(
    endpoint: str,
    model: RegisteredModelRecord,
    backends: Sequence[Backend],
    records: Records,
    store: DatasetStore,
    gateway: GatewayAdmin,
) -> Probe | None:
    """The same through the gateway, which may cut or rewrite; None where it does not run, or nothing can be asked.

    For an endpoint with one model: with two, nobody can tell which of them answers. Raises GatewayError.
    """
    sample = _sample(model, backends, records, store)
    limit = {"max_tokens": sample.max_new_tokens, "token_ids": True}
    rows = sample.rows[:THROUGH_GATEWAY]
    few = sample.conversations[:THROUGH_GATEWAY]
    answers = [gateway.ask(endpoint, one, tools=tools, **limit) for one, tools in few]
    pairs = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]
    if not pairs:
        return None
    found = differences([row for row, _ in pairs], [answer for _, answer in pairs])
    verdict = Verdict(not found, summary(len(pairs), found), {"asked": len(pairs)})
    return Probe(verdict, found, not _is_sure(backends, len(pairs), found))


def _sample(model: RegisteredModelRecord, backends: Sequence[Backend], records: Records, store: DatasetStore) -> Sample:
    limits = [limit for backend in backends if (limit := backend.runtime.get("max_output_tokens"))]
    return items_of(model, records, store, most=COMPARED, most_tokens=min(limits, default=None))


def _cut(model: RegisteredModelRecord, backends: Sequence[Backend], sample: Sample) -> str:
    limit = min(limit for backend in backends if (limit := backend.runtime.get("max_output_tokens")))
    return (
        f"{sample.cut:.0%} of the answers that {model.ref} gave in its evaluation are longer than the {limit} tokens "
        "that the endpoint allows: users would get them cut, and what was evaluated is not what is served. Raise "
        "runtime.max_output_tokens of the deployment"
    )


def _is_sure(backends: Sequence[Backend], asked: int, found: Sequence[Difference]) -> bool:
    """Whether a difference is no rounding: the evaluation's own engine and device rounds alike."""
    engines = {(backend.engine, backend.runtime.get("device")) for backend in backends}
    return engines <= {("transformers", "cpu")} or no_rounding(asked, found)
