"""Checks on `deployment`: what is served answers as it was evaluated."""

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.page import check_result
from llmops_assets.partitions import endpoints
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.serving import DeploymentRecord
from llmops_assets.serving import instructions
from llmops_assets.serving.assets import deployment
from llmops_assets.serving.erased_rows import served_affected
from llmops_assets.serving.probing import Probe, through_gateway
from llmops_assets.verdict import Verdict
from resources.backends.reconcile import replicas_of
from resources.catalog import Backend, Catalog
from resources.catalog.erasures import affected
from resources.dataset_store import DatasetStore
from resources.gateway import GatewayAdmin, GatewayError
from resources.model_server import ModelServers, ServerError
from resources.records import Records
from resources.tracking import Tracking

_QUESTION = [{"role": "user", "content": "안녕하세요"}]


@asset_check(
    asset=deployment,
    partitions_def=endpoints,
    blocking=True,
    description="Every model server that the endpoint routes to answers a completion, and so does the gateway under "
    "the endpoint's name when it runs, as the evaluation of the model did. The questions are no exposures.",
)
def serving_answers(
    context: dg.AssetCheckExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    servers: dg.ResourceParam[ModelServers],
    tracking: dg.ResourceParam[Tracking],
    gateway: dg.ResourceParam[GatewayAdmin],
) -> dg.AssetCheckResult:
    endpoint = catalog.endpoint(context.partition_key)
    backends = {backend.id: backend for backend in catalog.backends(endpoint.name)}
    faults, seconds, probe = [], {}, None
    for id in (id for route in endpoint.routes for id in replicas_of(route)):
        try:
            backend = backends.get(id)
            if backend is None:
                raise ServerError(f"{id} is routed to but not on record")
            seconds[backend.id] = servers.complete(backend, _QUESTION).seconds
        except ServerError as error:
            faults.append(str(error))
    try:
        through = gateway.probe(endpoint.name, _QUESTION)
        served = {route["model_ref"] for route in endpoint.routes}
        if len(served) == 1 and through is not None:
            model = tracking.model(served.pop())
            probe = _through_gateway(endpoint.name, model, list(backends.values()), catalog, records, store, gateway)
    except GatewayError as error:
        through = None
        faults.append(str(error))
    if probe is not None and not probe.verdict.passed:
        faults.append(f"through the gateway: {probe.verdict.text}")
    if not endpoint.routes:
        faults.append("the endpoint routes to nothing: materialise `deployment`")
    answered = f"{len(seconds)} model servers answer; through the gateway: {through or 'it does not run'}"
    figures = {f"{id} (s)": value for id, value in seconds.items()}
    verdict = Verdict(not faults, "; ".join(faults) or answered, figures)
    only_rounding = probe is not None and probe.may_be_rounding and len(faults) == 1
    differing = [vars(one) for one in probe.differing] if probe is not None else []
    return check_result(verdict, warn=only_rounding, rows={"differing": differing})


def _through_gateway(
    endpoint: str,
    model: RegisteredModelRecord,
    backends: list[Backend],
    catalog: Catalog,
    records: Records,
    store: DatasetStore,
    gateway: GatewayAdmin,
) -> Probe | None:
    if model.content_hash in {one.content_hash for one in affected(catalog)}:
        # Its test rows are gone with the erasure.
        return None
    return through_gateway(endpoint, model, backends, records, store, gateway)


@asset_check(
    asset=deployment,
    partitions_def=endpoints,
    description="The endpoint tells its model what the training told it before every question: the same system "
    "message, or none.",
)
def instructions_as_trained(
    context: dg.AssetCheckExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    tracking: dg.ResourceParam[Tracking],
) -> dg.AssetCheckResult:
    model = tracking.model(records.load(DeploymentRecord, context.partition_key).model_ref)
    prompt = catalog.prompts.all().get(context.partition_key)
    return check_result(instructions.told_as_trained(model, prompt, records, store), warn=True)


@asset_check(
    asset=deployment,
    partitions_def=endpoints,
    description="Nothing that the endpoint no longer routes to is still running.",
)
def nothing_left_running(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    left = records.load(DeploymentRecord, context.partition_key).left
    if not left:
        return check_result(Verdict(True, "every model server that is not routed to was stopped"), warn=True)
    text = f"{'; '.join(left)}: it is stopped again when the platform next looks after its model servers"
    return check_result(Verdict(False, text), warn=True)


@asset_check(
    asset=deployment,
    partitions_def=endpoints,
    description="No model that the endpoint serves was trained on rows that were erased since. `llmops dataset forget` "
    "reports it too, for what is being served at that time.",
)
def no_erased_rows_learned(
    context: dg.AssetCheckExecutionContext, catalog: dg.ResourceParam[Catalog]
) -> dg.AssetCheckResult:
    return check_result(served_affected(catalog, context.partition_key))
