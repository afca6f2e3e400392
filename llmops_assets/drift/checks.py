"""Checks on `drift_report`: an endpoint is asked what its model knows, and is as it was."""

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.drift.assets import drift_report
from llmops_assets.drift.verdicts import like_before, like_training
from llmops_assets.page import check_result
from llmops_assets.partitions import endpoints
from llmops_assets.records.serving import DriftRecord
from resources.records import Records


@asset_check(
    asset=drift_report,
    partitions_def=endpoints,
    description="What the endpoint is asked is distributed like the questions that its model was trained on. Only a "
    "warning: the world may change, and the model then needs new data.",
)
def like_training_data(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    return check_result(like_training(records.load(DriftRecord, context.partition_key)), warn=True)


@asset_check(
    asset=drift_report,
    partitions_def=endpoints,
    description="Requests, answers, ratings and latency are as in the last window in which nothing differed.",
)
def like_last_good_window(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    return check_result(like_before(records.load(DriftRecord, context.partition_key)), warn=True)
