"""Holds an evaluation against the policy's gate; the check and the registration ask the same question here."""

from dataclasses import dataclass

from llmops_assets.records.evaluation import EvaluationRecord, Metric
from llmops_assets.specs.evaluation_rules import Gate


@dataclass(frozen=True)
class GateOutcome:
    """Whether the gate is open, on what figure against what bound, and what to do when it is not."""

    passed: bool
    metric: Metric | None
    bound: float
    explanation: str
    advice: str

    @property
    def text(self) -> str:
        return f"{self.explanation} {self.advice}".strip()


def interval(metric: Metric, digits: int = 3) -> str:
    """A figure as it is written everywhere: ``0.967 (95 % interval 0.940 to 0.982, n = 300)``."""
    bounds = ""
    if metric.low is not None and metric.high is not None:
        bounds = f"95 % interval {metric.low:.{digits}f} to {metric.high:.{digits}f}, "
    return f"{metric.value:.{digits}f} ({bounds}n = {metric.n})"


def judge_gate(record: EvaluationRecord, gate: Gate) -> GateOutcome:
    """The gate for this record: the estimate or its worse bound, as the policy says, on enough items."""
    metric = record.metric(gate.suite, gate.metric)
    bound = gate.at_least if gate.at_least is not None else gate.at_most
    if metric is None:
        have = ", ".join(sorted(f"{m.name} of {m.suite}" for m in record.metrics if m.model == "tuned")) or "none"
        return GateOutcome(
            False,
            None,
            bound,
            f"The gate is {gate.text}, but the evaluation has no such figure (it has {have}).",
            "Evaluate the model on that suite, or change the gate in the policy.",
        )
    if (other := _other_judges(record, gate)) and gate.metric == "accuracy":
        return GateOutcome(
            False,
            metric,
            bound,
            f"The gate is {gate.text}, of answers judged by {gate.judge}; suite {gate.suite} was judged by {other}.",
            f"Judge it by {gate.judge} (evaluation.judge of the recipe, the suite's or its rows' own), or change "
            "`judge` of the gate in the policy: what another judge finds right is another figure.",
        )
    passed = gate.passes(metric.value, metric.n, low=metric.low, high=metric.high)
    finding = f"{gate.metric} of suite {gate.suite} is {interval(metric)}; the gate is {gate.text}."
    if passed:
        return GateOutcome(True, metric, bound, finding, _caution(metric, gate))
    if metric.n < gate.n_at_least:
        advice = (
            f"{metric.n} items are too few to decide on: register a version with more rows or a larger test share, "
            "and train on that."
        )
    elif gate.at_least is not None:
        advice = (
            "The model is not registered. Read the wrong answers in this asset's metadata: train longer or on more "
            "rows of the categories that fail, then train again; the run itself did not fail."
        )
    else:
        advice = (
            "The model is not registered. Train longer, on more text, or with a larger model, then train again; the "
            "run itself did not fail."
        )
    read = record.base_reading
    if read is not None and read.guesses and metric.n >= gate.n_at_least:
        advice = f"But first: {read.guess}. {advice}"
    return GateOutcome(False, metric, bound, finding, advice)


def _other_judges(record: EvaluationRecord, gate: Gate) -> str:
    """The rules by which the gate's suite was judged, where they are not those that the gate asks for; else empty.

    Rows whose answer is a call are judged as calls whatever is asked for, and no laxer than word by word.
    """
    used = [judge for judge in record.judges.get(gate.suite, "").split(", ") if judge and judge != "calls"]
    return ", ".join(used) if gate.judge and any(judge != gate.judge for judge in used) else ""


def _caution(metric: Metric, gate: Gate) -> str:
    """A word where the gate is open, but the interval reaches beyond its bound."""
    if gate.at_least is not None and metric.low is not None and metric.low < gate.at_least:
        return f"The lower bound of the interval is below {gate.at_least}: on other rows it may miss the gate."
    if gate.at_most is not None and metric.high is not None and metric.high > gate.at_most:
        return f"The upper bound of the interval is above {gate.at_most}: on other rows it may miss the gate."
    return ""
