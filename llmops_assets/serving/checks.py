"""Checks on `deployment` and `drift_report`: what is served answers as it was evaluated, and is asked what it knows."""

import dagster as dg

from llmops_assets.page import check_result
from llmops_assets.partitions import endpoints
from llmops_assets.records.serving import DeploymentRecord, DriftRecord
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.serving.assets import deployment, drift_report
from llmops_assets.serving.erased_rows import served_affected
from llmops_assets.serving.parity import OF_THE_PROMPT, Difference, differences, summary, template_hash
from llmops_assets.serving.parity_probe import items_of
from llmops_assets.specs.names import training_key
from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.catalog.erasures import affected
from resources.dataset_store import DatasetStore
from resources.gateway import GatewayAdmin, GatewayError
from resources.model_server import ModelServers, ServerError
from resources.records import Records
from resources.tracking import Tracking

_COMPARED = 8
_QUESTION = [{"role": "user", "content": "안녕하세요"}]


@dg.asset_check(
    asset=deployment,
    partitions_def=endpoints,
    blocking=True,
    description="Every model server that the endpoint routes to answers a completion, and so does the gateway under "
    "the endpoint's name when it runs. The questions are no exposures.",
)
def serving_answers(
    context: dg.AssetCheckExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    servers: dg.ResourceParam[ModelServers],
    gateway: dg.ResourceParam[GatewayAdmin],
) -> dg.AssetCheckResult:
    endpoint = catalog.endpoint(context.partition_key)
    backends = {backend.id: backend for backend in catalog.backends(endpoint.name)}
    faults, seconds = [], {}
    for route in endpoint.routes:
        try:
            backend = backends.get(route["backend_id"])
            if backend is None:
                raise ServerError(f"{route['backend_id']} is routed to but not on record")
            seconds[backend.id] = servers.complete(backend, _QUESTION).seconds
        except ServerError as error:
            faults.append(str(error))
    try:
        through = gateway.probe(endpoint.name, _QUESTION)
    except GatewayError as error:
        through = None
        faults.append(str(error))
    if not endpoint.routes:
        faults.append("the endpoint routes to nothing: materialise `deployment`")
    answered = f"{len(seconds)} model servers answer; through the gateway: {through or 'it does not run'}"
    figures = {f"{id} (s)": value for id, value in seconds.items()}
    return check_result(Verdict(not faults, "; ".join(faults) or answered, figures))


@dg.asset_check(
    asset=deployment,
    partitions_def=endpoints,
    blocking=True,
    description="The chat template of each served folder is the one that its model was trained and evaluated with.",
)
def template_parity(
    context: dg.AssetCheckExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    tracking: dg.ResourceParam[Tracking],
) -> dg.AssetCheckResult:
    faults, hashes = [], {}
    for backend in catalog.backends(context.partition_key):
        model = tracking.model(backend.model_ref)
        merged = records.load(MergedModelRecord, training_key(model.dataset, model.recipe))
        served = template_hash(backend.model_path)
        hashes[backend.model_ref] = served or "none"
        if served != merged.chat_template_hash:
            faults.append(
                f"{backend.model_ref} is served with chat template {served}, but was trained with "
                f"{merged.chat_template_hash}: materialise `merged_model` of {model.dataset}|{model.recipe} again"
            )
    text = "; ".join(faults) or f"{len(hashes)} models are served with the template of their training"
    return check_result(Verdict(not faults, text, hashes))


@dg.asset_check(
    asset=deployment,
    partitions_def=endpoints,
    blocking=True,
    description=f"Asked {_COMPARED} questions of its evaluation, each model that is served is shown the same prompt "
    "tokens and gives the same answers as there, past the gateway and through it. Another prompt always fails. An "
    "engine other than the evaluation's may round otherwise, so another answer only warns there.",
)
def answers_as_evaluated(
    context: dg.AssetCheckExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    servers: dg.ResourceParam[ModelServers],
    tracking: dg.ResourceParam[Tracking],
    gateway: dg.ResourceParam[GatewayAdmin],
) -> dg.AssetCheckResult:
    found: list[Difference] = []
    asked, engines, notes = 0, set(), []
    endpoint = catalog.endpoint(context.partition_key)
    backends = catalog.backends(endpoint.name)
    # With two models behind it, nobody can tell which of them answers a probe.
    alone = len({route["model_ref"] for route in endpoint.routes}) == 1
    erased = {one.content_hash for one in affected(catalog)}
    for backend in backends:
        model = tracking.model(backend.model_ref)
        if model.content_hash in erased:
            notes.append(f"{model.ref} is affected by an erasure, and its test rows are gone")
            continue
        most = backend.runtime.get("max_output_tokens")
        sample = items_of(model, records, store, most=_COMPARED, most_tokens=most)
        if not sample.rows:
            notes.append(sample.note)
            continue
        limit = {"max_tokens": sample.max_new_tokens, "token_ids": True}
        try:
            served = [servers.complete(backend, m, tools=tools, **limit) for m, tools in sample.conversations]
            # Only a gateway that does not run answers nothing.
            few = sample.conversations[: 2 if alone else 0]
            probes = [gateway.ask(endpoint.name, m, tools=tools, **limit) for m, tools in few]
        except (ServerError, GatewayError) as error:
            return check_result(Verdict(False, str(error)))
        pairs = [*zip(sample.rows, served, strict=True), *zip(sample.rows, probes, strict=False)]
        pairs = [(row, answer) for row, answer in pairs if answer is not None]
        found += differences([row for row, _ in pairs], [answer for _, answer in pairs])
        asked += len(pairs)
        engines.add((backend.engine, backend.runtime.get("device")))
    sure = engines <= {("transformers", "cpu")} or any(d.kind in OF_THE_PROMPT for d in found)
    verdict = Verdict(not found, "; ".join([summary(asked, found), *notes]), {"asked": asked})
    return check_result(verdict, warn=not sure, rows={"differing": [vars(d) for d in found]})


@dg.asset_check(
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


@dg.asset_check(
    asset=deployment,
    partitions_def=endpoints,
    description="No model that the endpoint serves was trained on rows that were erased since. `llmops dataset forget` "
    "reports it too, for what is being served at that time.",
)
def no_erased_rows_learned(
    context: dg.AssetCheckExecutionContext, catalog: dg.ResourceParam[Catalog]
) -> dg.AssetCheckResult:
    return check_result(served_affected(catalog, context.partition_key))


@dg.asset_check(
    asset=drift_report,
    partitions_def=endpoints,
    description="What the endpoint is asked is distributed like the questions that its model was trained on. Only a "
    "warning: the world may change, and the model then needs new data.",
)
def like_training_data(
    context: dg.AssetCheckExecutionContext, records: dg.ResourceParam[Records]
) -> dg.AssetCheckResult:
    record = records.load(DriftRecord, context.partition_key)
    text = f"{record.requests} requests against {record.reference_rows} training rows"
    if record.drifted:
        text = f"drifted: {', '.join(record.drifted)}; {text}. Look at the newest questions and add such data"
    figures: dict[str, float | int | str] = {"requests": record.requests}
    figures |= {f"PSI of {name}": feature["psi"] for name, feature in record.features.items()}
    return check_result(Verdict(not record.drifted, text, figures), warn=True)
