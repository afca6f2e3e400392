"""Checks on `ab_report`: that the comparison can be trusted, and that the treatment does no harm."""

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.experiments import verdicts
from llmops_assets.experiments.assets import ab_report
from llmops_assets.experiments.plan import FAILED, SLOW
from llmops_assets.page import check_result
from llmops_assets.partitions import experiments
from llmops_assets.records.experiments import AbReportRecord
from resources.records import Records


@asset_check(
    asset=ab_report,
    partitions_def=experiments,
    description="Users are split as intended. A mismatch means that users are lost or counted twice on one arm, and no "
    "difference between the arms means anything then.",
)
def no_sample_ratio_mismatch(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    return check_result(verdicts.sample_ratio(records.load(AbReportRecord, context.partition_key)))


@asset_check(
    asset=ab_report,
    partitions_def=experiments,
    description="Every user is assigned one model within a phase.",
)
def sticky_assignment(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    return check_result(verdicts.stickiness(records.load(AbReportRecord, context.partition_key)))


@asset_check(
    asset=ab_report,
    partitions_def=experiments,
    description="Slow and failed requests are not more frequent on the treatment beyond chance. Whether they are "
    "within their margin, which a promotion needs, stands beside it.",
)
def guardrails(context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    return check_result(verdicts.guardrails(records.load(AbReportRecord, context.partition_key)), warn=True)


def _of_guardrail(name: str, description: str) -> dg.AssetChecksDefinition:
    @asset_check(asset=ab_report, name=name, partitions_def=experiments, description=description)
    def check(context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
        record = records.load(AbReportRecord, context.partition_key)
        return check_result(verdicts.guardrail(record, name), warn=True)

    return check


slow_requests = _of_guardrail(
    SLOW, "Users' requests are not slower on the treatment beyond chance: the mean over users of each one's slow share."
)
failed_requests = _of_guardrail(
    FAILED, "Users' requests do not fail more often on the treatment beyond chance; a client's own faults are none."
)
