"""The check of a replay: that the candidate is not worse than what users have."""

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.page import check_result
from llmops_assets.partitions import endpoints
from llmops_assets.records.replay import ReplayRecord
from llmops_assets.replay import verdicts
from llmops_assets.replay.assets import replay_report
from llmops_assets.specs.policy import Policy
from resources.records import Records


@asset_check(
    asset=replay_report,
    partitions_def=endpoints,
    description="The candidate's answers are not worse beyond chance than those that users got, it refuses no more, "
    "and says no personal data that were not there.",
)
def as_good_as_before(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    record = records.load(ReplayRecord, context.partition_key)
    return check_result(verdicts.replayed(record, policy.serving.replay), warn=True)
