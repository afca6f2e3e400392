"""Checks on `registered_model` and `quantized_model`: served as evaluated, nothing erased, no worse than allowed."""

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.page import check_result
from llmops_assets.partitions import trainings
from llmops_assets.records.registry import ParityRecord, QuantizedModelRecord, RegisteredModelRecord
from llmops_assets.records.training import PlanRecord
from llmops_assets.registry.assets import quantized_model, registered_model
from llmops_assets.registry.transition import parity_key
from llmops_assets.serving.parity_probe import holds, measure_parity
from llmops_assets.specs.policy import Policy
from llmops_assets.training.erased_rows import learned_nothing_erased
from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.model_server import ModelServers, ServerError
from resources.records import Records


@asset_check(
    asset=registered_model,
    partitions_def=trainings,
    blocking=True,
    description="A probe server of this version is shown the prompt tokens that its evaluation saw (template, BOS, "
    "length) and gives the same answer tokens (stop). No version goes to production without.",
)
def served_as_evaluated(
    context: dg.AssetCheckExecutionContext,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    servers: dg.ResourceParam[ModelServers],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    cell = context.partition_key
    model = records.load(RegisteredModelRecord, cell)
    gpus = records.load(PlanRecord, cell).spec["resources"]["gpus"]
    wanted = policy.registry.parity_items
    known = records.find(ParityRecord, parity_key(model))
    try:
        # The same weights on the same engine answer alike: what passed is not served again for each materialisation.
        parity = (
            known
            if known is not None and holds(known, model, wanted)
            else measure_parity(model, records, store, servers, items=wanted, gpus=min(1, gpus))
        )
    except ServerError as error:
        return check_result(Verdict(False, str(error)))
    records.save(parity_key(model), parity)
    verdict = Verdict(parity.passed, parity.explanation, {"items": parity.items})
    return check_result(verdict, rows={"differing": parity.differences})


@asset_check(
    asset=registered_model,
    partitions_def=trainings,
    blocking=True,
    description="The training saw no row that was erased since, nor did the model that it started from. Nothing here "
    "unlearns: such a model gets no more users, and a new one is trained without those rows.",
)
def no_erased_rows(context: dg.AssetCheckExecutionContext, catalog: dg.ResourceParam[Catalog]) -> dg.AssetCheckResult:
    return check_result(learned_nothing_erased(catalog, context.partition_key))


@asset_check(
    asset=quantized_model,
    partitions_def=trainings,
    blocking=True,
    description="No form of the model with fewer bits lost more than the policy allows, of the gate's figure on the "
    "same items and of the tokens that it thinks likeliest.",
)
def little_lost(context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    made = records.load(QuantizedModelRecord, context.partition_key).models
    failed = [one for one in made if not one.passed]
    text = " ".join(one.explanation for one in failed or made)
    return check_result(Verdict(not failed, text, {f"{one.scheme} {one.figure}": one.difference for one in made}))
