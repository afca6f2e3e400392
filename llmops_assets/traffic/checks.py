"""Checks on a day of traffic."""

import dagster as dg
import polars as pl

from llmops_assets.check_steps import asset_check
from llmops_assets.page import check_result
from llmops_assets.partitions import traffic_days
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.traffic import TrafficRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.traffic import days, verdicts
from llmops_assets.traffic.assets import traffic
from resources.artifacts import Artifacts
from resources.records import Records


def _frame(context: dg.AssetCheckExecutionContext, artifacts: Artifacts) -> pl.DataFrame:
    key = context.partition_key.keys_by_dimension
    return days.read(artifacts, key["endpoint"], key["day"])


@asset_check(
    asset=traffic,
    partitions_def=traffic_days,
    blocking=True,
    description="No text of the day holds personal data that the patterns of the platform or of the policy know.",
)
def nothing_personal_in_traffic(
    context: dg.AssetCheckExecutionContext,
    artifacts: dg.ResourceParam[Artifacts],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    verdict, rows = verdicts.nothing_personal(_frame(context, artifacts), Masker.of(policy).types)
    return check_result(verdict, rows={"personal data": rows})


@asset_check(
    asset=traffic,
    partitions_def=traffic_days,
    description="The numbers that each worker of the gateway gave to its entries follow each other.",
)
def no_gap_in_traffic(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    record = records.load(TrafficRecord, context.partition_key)
    return check_result(verdicts.no_gap(record.gaps, record.requests), warn=True)


@asset_check(
    asset=traffic,
    partitions_def=traffic_days,
    description="No text is kept of a user who refused it, or gave no consent where the policy asks for it.",
)
def traffic_with_consent(
    context: dg.AssetCheckExecutionContext,
    artifacts: dg.ResourceParam[Artifacts],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    required = policy.traffic.consent == "required"
    return check_result(verdicts.with_consent(_frame(context, artifacts), is_required=required), warn=True)
