"""What the demo came to, line by line, each with its asset and partition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops_assets.operations.trainings import GATE
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord, Metric
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.serving import DeploymentRecord
from llmops_assets.records.training import AdapterRecord
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from llmops_assets.local.watch import Outcome, Watcher


@dataclass
class Line:
    """One line of the closing table: what, how much, and where to look at it."""

    what: str
    value: str
    asset: str
    partition: str


def results(
    wiring: Wiring,
    watcher: "Watcher",
    datasets: Sequence[str],
    trainings: "Sequence[Outcome]",
    experiment: ExperimentSpec,
) -> list[Line]:
    """What the loop came to, read from records, checks and the registry."""
    r = wiring.records
    lines: list[Line] = []
    for key in datasets:
        data, report = r.load(DatasetRecord, key), r.load(QualityRecord, key)
        clean, splits = r.load(CleanRecord, key), r.load(SplitsRecord, key)
        lines += [
            Line("rows in", f"{data.rows:,}", "dataset", key),
            Line("quarantined", f"{data.quarantined:,}", "dataset", key),
            Line(
                "duplicates",
                f"{report.exact_duplicates} exact, {report.near_duplicates} near",
                "quality_report",
                key,
            ),
            Line("masked", _counts(clean.masked_by_type), "clean_dataset", key),
            Line("dropped", _counts(clean.dropped_by_reason), "clean_dataset", key),
            Line("train / validation / test", _sizes(splits.rows), "splits", key),
        ]
    for outcome in trainings:
        cell = outcome.partition
        adapter, evaluation = r.load(AdapterRecord, cell), r.load(EvaluationRecord, cell)
        lines.append(Line("loss", f"{adapter.first_loss:.3f} → {adapter.last_loss:.3f}", "adapter", cell))
        lines += [
            Line(_metric_name(metric), _interval(metric), "evaluation", cell)
            for metric in evaluation.metrics
            if metric.name in ("accuracy", "perplexity")
        ]
        gate = watcher.check(*GATE, cell)
        verdict = "opened" if gate and gate.passed else "withheld"
        lines.append(Line("gate", f"{verdict}: {gate.description.split('. ')[0] if gate else ''}", "evaluation", cell))
        registered = r.find(RegisteredModelRecord, cell)
        lines.append(Line("registered", registered.ref if registered else "no: withheld", "registered_model", cell))
    stages = [(key, "splits") for key in datasets]
    stages += [(outcome.partition, "evaluation") for outcome in trainings]
    stages += [(experiment.endpoint, "deployment"), (experiment.name, "ab_report")]
    for partition, asset in stages:
        checks = watcher.checks(partition, asset)
        missed = [f"{c.asset}.{c.name}" for c in checks if not c.passed]
        text = f"{len(checks) - len(missed)} of {len(checks)} passed" + (f"; {', '.join(missed)}" if missed else "")
        lines.append(Line("checks", text, "(all)", partition))
    deployment = r.load(DeploymentRecord, experiment.endpoint)
    routes = ", ".join(f"{route['model_ref']} {route['weight']:g}" for route in deployment.routes)
    lines.append(Line("serves", routes, "deployment", experiment.endpoint))
    report = r.load(AbReportRecord, experiment.name)
    lines.append(Line("A/B users", _counts(report.users), "ab_report", experiment.name))
    lines.append(Line("A/B decision", f"{report.decision}: {report.reason}", "ab_report", experiment.name))
    aliases = ", ".join(wiring.tracking.version(experiment.treatment).aliases) or "none"
    lines.append(Line("MLflow alias", f"{experiment.treatment}: {aliases}", "deployment", experiment.endpoint))
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: -item[1]) if n) or "none"


def _sizes(rows: dict[str, int]) -> str:
    return " / ".join(f"{rows.get(name, 0):,}" for name in ("train", "validation", "test"))


def _metric_name(metric: Metric) -> str:
    owner = "its base's " if metric.model == "base" else ""
    return f"{owner}{metric.name}, {'test split' if metric.suite == 'test' else metric.suite}"


def _interval(metric: Metric) -> str:
    text = f"{metric.value:.3f}"
    if metric.low is not None and metric.high is not None:
        text += f" (95 %: {metric.low:.3f} to {metric.high:.3f})"
    return f"{text}, n = {metric.n}"
