"""Retraining: rules that somebody wrote, and what they ask for as things are."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from llmops_assets.drift.verdicts import like_before, like_training
from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import OperationError, Refused
from llmops_assets.operations.reviews import feedback_dataset, review_queue
from llmops_assets.records.serving import DriftRecord
from llmops_assets.records.training import AdapterRecord
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.names import split_versioned
from llmops_assets.specs.retraining import RetrainingRule
from llmops_assets.specs.rules import check_dataset
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.retraining import Facts, NotYet, Past, Retrain, decide
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound
from resources.catalog.retrainings import RuleEntry
from resources.encryption import EncryptionError

ACTOR = "retraining"
"""Who asks for the trainings of rules, for the audit log."""
_FAULTS = (OperationError, SpecError, NotFound, Conflict, ValueError, OSError, EncryptionError)
"""What is wrong with one rule, or with a record that it rests on: the others go on."""


@dataclass(frozen=True)
class Outcome:
    """What a rule came to: the training that it asked for, or why it asks for none."""

    rule: str
    reason: str
    dataset: str | None = None
    recipe: str | None = None
    is_held: bool = False
    """There is a reason to retrain, and something is in the way."""
    needs_person: bool = False
    """What is in the way stays there until somebody does something."""

    @property
    def is_due(self) -> bool:
        return self.recipe is not None


def set_rule(wiring: Wiring, actor: str, rule: RetrainingRule) -> bool:
    """Write a rule, in the place of one of that name; False when it is as it was.

    Raises NotFound for a recipe or an endpoint that is not there.
    """
    authorise(wiring, actor, "training.request")
    wiring.catalog.recipe(rule.recipe)
    if rule.endpoint is not None:
        wiring.catalog.endpoint(rule.endpoint)
    return wiring.catalog.retrainings.put(rule.name, rule.model_dump(mode="json"), actor)


def remove_rule(wiring: Wiring, actor: str, name: str) -> None:
    """Take a rule away; what it asked for goes on."""
    authorise(wiring, actor, "training.request")
    wiring.catalog.retrainings.remove(name, actor)


def preview(wiring: Wiring, now: datetime | None = None) -> list[Outcome]:
    """What each rule would ask for as things are; asks for nothing."""
    found = []
    for entry in wiring.catalog.retrainings.rules():
        try:
            rule = RetrainingRule.model_validate(entry.spec)
            step = decide(rule, facts_of(wiring, rule, entry, now or datetime.now(UTC)))
            found.append(_outcome(rule, step))
        except _FAULTS as error:
            found.append(Outcome(entry.name, str(error), is_held=True, needs_person=True))
    return found


def request_due(wiring: Wiring, actor: str = ACTOR, now: datetime | None = None) -> list[Outcome]:
    """Ask for every training that is due by a rule, once; what each rule came to.

    A fault in one rule is its outcome, and the others go on. Killed at any line it can be repeated: what was reviewed
    is registered under a version that is made of the decisions, and the training is wanted in the transaction that
    notes it.
    """
    authorise(wiring, actor, "training.request")
    outcomes = []
    for entry in wiring.catalog.retrainings.rules():
        try:
            outcomes.append(_take_up(wiring, actor, entry, now or datetime.now(UTC)))
        except _FAULTS as error:
            outcomes.append(Outcome(entry.name, str(error), is_held=True, needs_person=True))
    return outcomes


def _take_up(wiring: Wiring, actor: str, entry: RuleEntry, now: datetime) -> Outcome:
    rule = RetrainingRule.model_validate(entry.spec)
    step = decide(rule, facts_of(wiring, rule, entry, now))
    if isinstance(step, NotYet):
        return _outcome(rule, step)
    dataset, until = step.dataset, None
    if dataset is None:
        dataset, until = _register_reviewed(wiring, actor, rule)
    recipe = wiring.catalog.recipe(rule.recipe)
    version = wiring.catalog.dataset_entry(dataset)
    spec = TrainJobSpec.model_validate({**recipe, "dataset_ref": dataset})
    if faults := check_dataset(spec, version.spec.type, version.status):
        raise SpecError(faults)
    asked = wiring.catalog.retrainings.request(
        rule.name,
        cause=step.cause,
        reason=f"{step.reason} (rule {rule.name})",
        dataset=dataset,
        recipe=rule.recipe,
        reviewed_until=until,
        actor=actor,
    )
    if not asked:
        return Outcome(rule.name, f"{dataset} was asked for already, or another training of the recipe just was")
    return Outcome(rule.name, step.reason, dataset, rule.recipe)


def _register_reviewed(wiring: Wiring, actor: str, rule: RetrainingRule) -> tuple[str, datetime]:
    """Register what was reviewed as a version; its key, and until when reviews are in it."""
    if rule.on_reviewed is None or rule.endpoint is None:
        raise ValueError(f"rule {rule.name} has no dataset of reviewed answers")
    queue = review_queue(wiring, rule.endpoint)
    decided = [item for item in queue.items if item.decision.is_usable]
    words = json.dumps([(item.request_id, item.decision.text) for item in decided], ensure_ascii=False)
    until = max(review.at for item in decided for review in item.reviews)
    version = f"r{len(decided)}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    kind = _type_of(wiring, rule)
    if kind not in ("sft_pair", "rlhf_pair"):
        raise Refused(f"recipe {rule.recipe} trains on {kind}, and reviewed answers become sft_pair or rlhf_pair")
    made = feedback_dataset(
        wiring, actor, endpoint=rule.endpoint, name=rule.on_reviewed.dataset, version=version, kind=kind, owner=actor
    )
    return made.registered.key, until


def _type_of(wiring: Wiring, rule: RetrainingRule) -> str:
    """The type of dataset that the recipe trains on."""
    recipe = wiring.catalog.recipe(rule.recipe)
    return TrainJobSpec.model_validate({**recipe, "dataset_ref": "any@v1"}).dataset_type


def facts_of(wiring: Wiring, rule: RetrainingRule, entry: RuleEntry, now: datetime) -> Facts:
    """What a rule is held against, as the catalog and the records have it."""
    catalog = wiring.catalog
    made = catalog.retrainings.made(rule.name)
    kind = _type_of(wiring, rule)
    usable = [
        one
        for one in sorted(catalog.datasets(), key=lambda one: one.created_at)
        if rule.selects(split_versioned(one.key)[0]) and one.status == "active" and one.spec.type == kind
    ]
    seconds = {
        one.dataset: record.seconds
        for one in made
        if (record := wiring.records.find(AdapterRecord, f"{one.dataset}|{one.recipe}")) is not None
    }
    underway = next((i.key for i in catalog.intents.open("train") if i.key.endswith(f"|{rule.recipe}")), None)
    drift = wiring.records.find(DriftRecord, rule.endpoint) if rule.endpoint is not None else None
    verdicts = [like_training(drift), like_before(drift)] if drift is not None else []
    last = max((one.reviewed_until for one in made if one.reviewed_until is not None), default=None)
    return Facts(
        now=now,
        since=entry.created_at,
        versions=[(one.key, one.created_at) for one in usable],
        trained={request.dataset for request in catalog.training_requests() if request.recipe == rule.recipe},
        underway=underway,
        past=[Past(one.at, seconds.get(one.dataset, 0.0)) for one in made],
        drifted=[*drift.drifted, *drift.before_drifted] if drift and not all(v.passed for v in verdicts) else [],
        drift_at=drift.until if drift is not None else None,
        reviewed=_reviewed(wiring, rule, last),
    )


def _reviewed(wiring: Wiring, rule: RetrainingRule, since: datetime | None) -> int:
    if rule.on_reviewed is None:
        return 0
    usable = [item for item in review_queue(wiring, rule.endpoint).items if item.decision.is_usable]
    return sum(since is None or max(review.at for review in item.reviews) > since for item in usable)


def _outcome(rule: RetrainingRule, step: Retrain | NotYet) -> Outcome:
    if isinstance(step, NotYet):
        return Outcome(rule.name, step.reason, is_held=step.is_held, needs_person=step.needs_person)
    name = step.dataset or (f"{rule.on_reviewed.dataset}@(reviewed answers)" if rule.on_reviewed else None)
    return Outcome(rule.name, step.reason, name, rule.recipe)
