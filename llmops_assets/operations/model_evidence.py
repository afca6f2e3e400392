"""What a model's approval is decided beside: its evaluation, what stands against each step, and how it compares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.operations.dataset_entries import find_version
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.model_entries import Model, find_model
from llmops_assets.operations.trainings import Requested, request_training
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.specs.names import training_key
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from resources.catalog import NotFound


@dataclass(frozen=True)
class StepAhead:
    """A step of a model's life, and every reason against it; none where it can be taken."""

    action: str
    to: str
    refusals: list[str]


@dataclass(frozen=True)
class Evidence:
    """What is known of a model; `recorded` is the evaluation of the training that it came from, None where it is gone
    and of a base model."""

    model: Model
    recorded: EvaluationRecord | None
    checks: list[dict[str, Any]]
    training: str | None
    has_run: bool

    @property
    def has_report(self) -> bool:
        """Whether the report of the evaluation is there to be opened."""
        return bool(self.recorded and self.recorded.report and Path(self.recorded.report).is_file())


def evidence(wiring: Wiring, ref: str) -> Evidence:
    """What the approval of a model is decided beside; raises NotFound. A base model was not evaluated here."""
    model = find_model(wiring, ref)
    if model.kind == "base":
        return Evidence(model, None, [], None, False)
    record = wiring.tracking.model(model.id)
    cell = training_key(record.dataset, record.recipe)
    checks = wiring.run_log.checks(cell, ["adapter", "merged_model", "evaluation", "registered_model"])
    return Evidence(
        model,
        wiring.records.find(EvaluationRecord, cell),
        [
            {"asset": c.asset, "check": c.name, "passed": c.passed, "warning": c.warning, "detail": c.description}
            for c in checks
        ],
        cell,
        record.mlflow_run_id is not None,
    )


def steps_ahead(wiring: Wiring, ref: str) -> list[StepAhead]:
    """The steps that may come next for a model, with what stands against each. Its files are hashed for that, which
    takes a while for a large one."""
    from llmops_assets.registry.lifecycle import LEADS_TO, Action, judge
    from llmops_assets.registry.transition import Registry, evidence_of

    model = find_model(wiring, ref)
    if model.kind == "base":
        found = ("approve", "approved") if model.state in ("draft", "archived") else ("archive", "archived")
        return [StepAhead(*found, [])]
    known = evidence_of(Registry(wiring.tracking, wiring.records, wiring.catalog, wiring.policy), model.id)
    possible: dict[str, tuple[Action, ...]] = {
        "draft": ("approve", "archive"),
        "approved": ("stage", "archive"),
        "staging": ("promote", "archive"),
        "archived": ("approve",),
    }
    judged = [judge(action, known) for action in possible.get(known.state, ())]
    return [StepAhead(one.action, LEADS_TO[one.action], [str(why) for why in one.refusals]) for one in judged]


def run_address(wiring: Wiring, ref: str) -> str:
    """The page of the MLflow run that made a version; raises NotFound where there is none."""
    record = _registered(wiring, ref)
    if record.mlflow_run_id is None:
        raise NotFound(f"{record.ref} has no run in MLflow")
    return wiring.tracking.run_url(record.mlflow_run_id, wiring.settings.mlflow_url)


def request_evaluation(wiring: Wiring, actor: str, ref: str, suite: str) -> Requested:
    """Have a trained version asked another suite too: its recipe is requested anew with the suite, and its weights are
    reused. Raises NotFound, Refused for what is no suite, or for one that it was asked already."""
    record = _registered(wiring, ref)
    key = find_version(wiring, suite)
    entry = wiring.catalog.dataset_entry(key)
    if entry.spec.type != "eval_suite":
        raise Refused(f"{key} is of type {entry.spec.type}: a model is evaluated on an eval_suite")
    spec = TrainJobSpec.from_recipe(wiring.catalog.recipe(record.recipe), record.dataset)
    if key in spec.evaluation.suites:
        raise Refused(f"{record.ref} was asked {key} already: its evaluation has the figures")
    asked = spec.evaluation.model_copy(update={"suites": [*spec.evaluation.suites, key]})
    return request_training(wiring, actor, spec.model_copy(update={"evaluation": asked}))


def evaluation_report(wiring: Wiring, ref: str) -> str:
    """The report of a version's evaluation as one HTML file; raises NotFound where there is none."""
    record = _registered(wiring, ref)
    cell = training_key(record.dataset, record.recipe)
    found = wiring.records.find(EvaluationRecord, cell)
    if found is None or not found.report or not Path(found.report).is_file():
        raise NotFound(f"{record.ref} has no report of its evaluation: materialise `evaluation` of {cell}")
    return wiring.keys.open(Path(found.report).read_bytes(), Path(found.report)).decode("utf-8")


def compare_models(wiring: Wiring, first: str, second: str) -> dict[str, Any]:
    """Two registered versions: figures with intervals, McNemar's test on the same items, answers, settings and data.

    Raises NotFound, or Refused where one of them has nothing to be compared by.
    """
    from llmops_assets.registry import compare_report

    found = _compared(wiring, first, second)
    return {**compare_report.as_json(found), "headline": compare_report.headline(found), "notes": list(found.notes)}


def comparison_page(wiring: Wiring, first: str, second: str) -> str:
    """The comparison of two versions as one HTML file with its picture. Raises as `compare_models`."""
    from llmops_assets import plots
    from llmops_assets.registry import compare_report

    found = _compared(wiring, first, second)
    return compare_report.page(found, plots.data_uri(compare_report.plot(found)))


def _compared(wiring: Wiring, first: str, second: str) -> Any:
    from llmops_assets.registry.compare import compare
    from llmops_assets.registry.compared_model import compared_model_of

    records = [_registered(wiring, ref) for ref in (first, second)]
    try:
        return compare(*(compared_model_of(record, wiring.records) for record in records))
    except (FileNotFoundError, ValueError) as error:
        raise Refused(str(error)) from error


def _registered(wiring: Wiring, ref: str) -> RegisteredModelRecord:
    model = find_model(wiring, ref)
    if model.kind == "base":
        raise Refused(f"{model.id} is a base model: it was not evaluated here")
    return wiring.tracking.model(model.id)
