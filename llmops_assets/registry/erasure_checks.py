"""Checks on `registered_model`: it has learned from nothing that was erased since."""

import dagster as dg

from llmops_assets.checking import check_result
from llmops_assets.erasure.affected import learned_nothing_erased
from llmops_assets.partitions import trainings
from llmops_assets.registry.assets import registered_model
from resources.catalog import Catalog


@dg.asset_check(
    asset=registered_model,
    partitions_def=trainings,
    blocking=True,
    description="The training saw no row that was erased since, nor did the model that it started from. Nothing here "
    "unlearns: such a model gets no more users, and a new one is trained without those rows.",
)
def no_erased_rows(context: dg.AssetCheckExecutionContext, catalog: dg.ResourceParam[Catalog]) -> dg.AssetCheckResult:
    return check_result(learned_nothing_erased(catalog, context.partition_key))
