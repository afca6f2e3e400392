"""What must hold at each step of a training before the next one starts."""

from collections.abc import Callable

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.datasets import suites
from llmops_assets.page import check_result
from llmops_assets.partitions import trainings
from llmops_assets.records.base import Record
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.training import job_verdicts, merge_verdicts, plan_verdicts, verdicts
from llmops_assets.training.assets import adapter, merged_model, training_plan
from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records


def _check(
    asset: dg.AssetsDefinition, judge: Callable[..., Verdict], description: str, *kinds: type[Record]
) -> dg.AssetChecksDefinition:
    """A blocking check of the asset's partition: `judge` is given the records of `kinds`."""

    @asset_check(asset=asset, name=judge.__name__, blocking=True, partitions_def=trainings, description=description)
    def check(context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
        return check_result(judge(*(records.load(kind, context.partition_key) for kind in kinds)))

    return check


def same_as_trained(merged: MergedModelRecord, plan: PlanRecord) -> Verdict:
    return merge_verdicts.same_as_trained(merged, plan.precision)


def reference_kept(merged: MergedModelRecord, plan: PlanRecord) -> Verdict:
    return merge_verdicts.reference_kept(merged, plan.precision)


every_row_trains = _check(training_plan, verdicts.every_row_trains, "Every row has tokens that carry loss.", PlanRecord)


@asset_check(
    asset=training_plan,
    blocking=True,
    partitions_def=trainings,
    description="Hardly any answer is cut by max_seq_len.",
)
def answers_whole(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    plan = records.load(PlanRecord, context.partition_key)
    return check_result(verdicts.answers_whole(plan, policy.limits.max_cut_answers))


@asset_check(
    asset=training_plan,
    blocking=True,
    partitions_def=trainings,
    description="No evaluation suite that is registered by now stands in the training rows.",
)
def no_suite_in_training_rows(
    context: dg.AssetCheckExecutionContext,
    records: dg.ResourceParam[Records],
    catalog: dg.ResourceParam[Catalog],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    # The same question as `no_contamination` on the splits: suites may have come since that was asked.
    # Asked alone, a check is given its cell as text.
    dataset, _, _ = str(context.partition_key).partition("|")
    found = suites.compared(
        records.load(SplitsRecord, dataset), suites.registered_suites(catalog, records), records, store
    )
    return check_result(suites.verdict(found, policy.datasets.max_contaminated_share))


@asset_check(
    asset=training_plan,
    blocking=True,
    partitions_def=trainings,
    description="Leaving long rows out leaves enough to be what was registered.",
)
def rows_kept(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    plan = records.load(PlanRecord, context.partition_key)
    return check_result(plan_verdicts.rows_kept(plan, policy.limits.max_dropped_rows))


@asset_check(
    asset=training_plan,
    blocking=True,
    partitions_def=trainings,
    description="The chat template writes every message of the rows, and marks what the assistant says alone.",
)
def template_faithful(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    plan = records.load(PlanRecord, context.partition_key)
    table = [
        {"finding": f.name, "rows": f.rows, "blocks": f.blocking, "examples": ", ".join(f.row_ids)}
        for f in plan.findings
    ]
    return check_result(plan_verdicts.template_faithful(plan), rows={"findings": table})


stop_token_trained = _check(
    training_plan, verdicts.stop_token_trained, "The model is taught where to stop.", PlanRecord
)
template_keeps_prefix = _check(
    training_plan, verdicts.template_keeps_prefix, "Training and serving render alike.", PlanRecord
)
schedule_trains = _check(
    training_plan, plan_verdicts.schedule_trains, "The rate reaches what the spec says, and moves weights.", PlanRecord
)
answers_differ = _check(
    training_plan, plan_verdicts.answers_differ, "The rows do not all have the same answer.", PlanRecord
)
one_bos = _check(training_plan, verdicts.one_bos, "No row begins with two beginning-of-sequence tokens.", PlanRecord)
memory_fits = _check(training_plan, verdicts.memory_fits, "The training fits the device.", PlanRecord)
pairs_differ = _check(
    training_plan, job_verdicts.pairs_differ, "Preference pairs have two different answers.", PlanRecord
)
prompts_have_room = _check(
    training_plan, job_verdicts.prompts_have_room, "Prompts leave room for an answer.", PlanRecord
)
no_contradictions = _check(
    training_plan, job_verdicts.no_contradictions, "No negative belongs to its own anchor.", PlanRecord
)
learned = _check(
    adapter,
    job_verdicts.learned,
    "Rewards tell answers apart, a policy stays near its reference, an encoder tells texts apart.",
    AdapterRecord,
    PlanRecord,
)
weights_finite = _check(adapter, verdicts.weights_finite, "Weights and losses are numbers.", AdapterRecord)
weights_moved = _check(
    adapter,
    verdicts.weights_moved,
    "The weights differ from their initialisation, as rate and steps let them.",
    AdapterRecord,
    PlanRecord,
)
loss_fell = _check(adapter, verdicts.loss_fell, "The training loss fell.", AdapterRecord)
checkpoint_kept = _check(adapter, verdicts.checkpoint_kept, "The last checkpoint is whole.", AdapterRecord, PlanRecord)
equals_adapter = _check(
    merged_model, same_as_trained, "Merging did not change the model.", MergedModelRecord, PlanRecord
)
differs_from_base = _check(
    merged_model, merge_verdicts.differs_from_base, "The model is not its base.", MergedModelRecord
)
reference_is_base = _check(
    merged_model,
    reference_kept,
    "What a policy was held to while it learned is its base, to the end.",
    MergedModelRecord,
    PlanRecord,
)
base_whole = _check(
    merged_model,
    merge_verdicts.base_whole,
    "No two layers of the base stand in each other's place, by how it predicts the texts of the rows.",
    MergedModelRecord,
)
reloads = _check(merged_model, merge_verdicts.reloads, "The saved model can be loaded.", MergedModelRecord)
same_template = _check(
    merged_model,
    merge_verdicts.same_template,
    "It carries the template it was trained with.",
    MergedModelRecord,
    PlanRecord,
)
