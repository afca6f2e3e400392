"""Checks on `evaluation`: the gate, that nothing was lost, and that the model beats what it was made from."""

import dagster as dg

from llmops_assets.evaluation.assets import evaluation
from llmops_assets.evaluation.gate import judge_gate
from llmops_assets.evaluation.report import number
from llmops_assets.evaluation.verdicts import (
    compare_with_base,
    completeness,
    forgetting,
    further_gates,
    regression,
    suites_unseen,
)
from llmops_assets.page import check_result
from llmops_assets.partitions import trainings
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.records import EvaluationRecord, PlanRecord
from resources.records import Records


@dg.asset_check(
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
    metadata = {"gate": policy.gates[plan.spec["job_type"]].text}
    if outcome.metric is not None:
        m = outcome.metric
        metadata |= {"value": number(m.value), "low": number(m.low), "high": number(m.high), "n": str(m.n)}
    return dg.AssetCheckResult(
        passed=outcome.passed, severity=dg.AssetCheckSeverity.ERROR, description=outcome.text, metadata=metadata
    )


@dg.asset_check(
    asset=evaluation,
    partitions_def=trainings,
    blocking=True,
    description="Every item of every suite got an answer, and not all of the answers are empty.",
)
def complete(context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    return check_result(completeness(records.load(EvaluationRecord, context.partition_key)))


@dg.asset_check(
    asset=evaluation,
    partitions_def=trainings,
    description="The model is right on more items than its base, beyond chance; a pre-trained one is better than "
    "guessing. Only a warning.",
)
def beats_base(context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    verdict = compare_with_base(records.load(EvaluationRecord, context.partition_key))
    return check_result(verdict, warn=True)


@dg.asset_check(
    asset=evaluation,
    partitions_def=trainings,
    description="On suites of general ability the model fell no further below its base than the policy allows. Not "
    "blocking: a model that forgot too much is no failed run, but it is not registered.",
)
def nothing_forgotten(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    record = records.load(EvaluationRecord, context.partition_key)
    return check_result(forgetting(record, policy.evaluation.forgetting))


@dg.asset_check(
    asset=evaluation,
    partitions_def=trainings,
    description="On no suite is the model worse, beyond chance, than the version in production (McNemar's test on the "
    "same items). Not blocking: it is not registered.",
)
def no_regression(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    record = records.load(EvaluationRecord, context.partition_key)
    return check_result(regression(record, policy.evaluation.regression))


@dg.asset_check(
    asset=evaluation,
    partitions_def=trainings,
    description="Every further gate of the policy (evaluation.gates) on a suite that the model was asked is open. Not "
    "blocking: a model that misses one is not registered.",
)
def suite_gates(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    return check_result(further_gates(records.load(EvaluationRecord, context.partition_key), policy.evaluation.gates))


@dg.asset_check(
    asset=evaluation,
    name=suites_unseen.__name__,
    partitions_def=trainings,
    description="No suite that the model was asked stands in the rows that it or its base was trained on. Not "
    "blocking: a model that was trained on its exam is no failed run, but it is not registered.",
)
def suites_are_unseen(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    record = records.load(EvaluationRecord, context.partition_key)
    return check_result(suites_unseen(record, policy.datasets.max_contaminated_share))
