"""Checks on `evaluation`: the gate, that nothing was lost, and that the model beats what it was made from."""

from collections.abc import Callable

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.evaluation import verdicts
from llmops_assets.evaluation.assets import evaluation
from llmops_assets.evaluation.gate import judge_gate
from llmops_assets.evaluation.report import number
from llmops_assets.page import check_result
from llmops_assets.partitions import trainings
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import PlanRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.verdict import Verdict
from resources.records import Records


@asset_check(
    asset=evaluation,
    partitions_def=trainings,
    description="The figure that the policy asks for reaches its bound, on enough items. Not blocking: a model that "
    "misses it is no failed run, but it is not registered.",
)
def accuracy_gate(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    record = records.load(EvaluationRecord, context.partition_key)
    plan = records.load(PlanRecord, context.partition_key)
    outcome = judge_gate(record, policy.gates[plan.spec["job_type"]])
    figures: dict[str, float | int | str] = {"gate": policy.gates[plan.spec["job_type"]].text}
    if outcome.metric is not None:
        m = outcome.metric
        figures |= {"value": number(m.value), "low": number(m.low), "high": number(m.high), "n": str(m.n)}
    return check_result(Verdict(outcome.passed, outcome.text, figures))


def _check(
    name: str,
    judge: Callable[[EvaluationRecord, Policy], Verdict],
    description: str,
    *,
    blocking: bool = False,
    warn: bool = False,
) -> dg.AssetChecksDefinition:
    """A check of the evaluation's record by the policy; `warn` shows a failed one as a warning."""

    @asset_check(asset=evaluation, name=name, blocking=blocking, partitions_def=trainings, description=description)
    def check(
        context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
    ) -> dg.AssetCheckResult:
        return check_result(judge(records.load(EvaluationRecord, context.partition_key), policy), warn=warn)

    return check


complete = _check(
    "complete",
    lambda record, policy: verdicts.completeness(record),
    "Every item of every suite got an answer, and not all of the answers are empty.",
    blocking=True,
)
answers_end = _check(
    "answers_end",
    lambda record, policy: verdicts.answers_end(record, policy.limits.max_cut_answers),
    "Right answers fit into max_new_tokens, and those that count as right end by themselves. Not blocking: one that "
    "does not end is no failed run, but it is not registered.",
)


@asset_check(
    asset=evaluation,
    partitions_def=trainings,
    description="The model does not say the same to every question of a suite, which is a warning: whether it is right "
    "is for the gate to say. No suite is passed by whoever always takes the choice at one place, by which no model is "
    "registered.",
)
def questions_matter(context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    record = records.load(EvaluationRecord, context.partition_key)
    return check_result(verdicts.questions_matter(record), warn=verdicts.suites_ask(record).passed)


same_alone = _check(
    "same_alone",
    lambda record, policy: verdicts.same_alone(record),
    "Items that are asked alone too get the answer that they got in a batch. Not blocking: a score that depends on the "
    "batch size is no failed run, but the model is not registered.",
)
judge_tells_apart = _check(
    "judge_tells_apart",
    lambda record, policy: verdicts.judge_tells_apart(record),
    "An LLM judge finds references better than the answers to other questions, in whichever place. Not blocking: what "
    "another judge says is no failed run, but the model is not registered.",
)
beats_base = _check(
    "beats_base",
    lambda record, policy: verdicts.compare_with_base(record),
    "The model is right on more items than its base, beyond chance; a pre-trained one is better than guessing. Only a "
    "warning.",
    warn=True,
)
nothing_forgotten = _check(
    "nothing_forgotten",
    lambda record, policy: verdicts.forgetting(record, policy.evaluation.forgetting),
    "On suites of general ability the model fell no further below its base than the policy allows. Not blocking: a "
    "model that forgot too much is no failed run, but it is not registered.",
)
no_regression = _check(
    "no_regression",
    lambda record, policy: verdicts.regression(record, policy.evaluation.regression),
    "On no suite is the model worse, beyond chance, than the version in production (McNemar's test on the same items). "
    "Not blocking: it is not registered.",
)
suite_gates = _check(
    "suite_gates",
    lambda record, policy: verdicts.further_gates(record, policy.evaluation.gates),
    "Every further gate of the policy (evaluation.gates) on a suite that the model was asked is open. Not blocking: a "
    "model that misses one is not registered.",
)
suites_unseen = _check(
    "suites_unseen",
    lambda record, policy: verdicts.suites_unseen(record, policy.datasets.max_contaminated_share),
    "No suite that the model was asked stands in the rows that it or its base was trained on. Not blocking: a model "
    "that was trained on its exam is no failed run, but it is not registered.",
)
