"""The asset of an endpoint: `deployment`, what it serves."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import dagster as dg

from llmops_assets.evaluation.answers import has_chat_template
from llmops_assets.page import check_result, link, stored_path
from llmops_assets.partitions import endpoints
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.serving import DeploymentRecord
from llmops_assets.serving import admission, rag, rollout
from llmops_assets.serving.adapters import NoAdapter, ServedAdapter, adapter_for
from llmops_assets.serving.before_traffic import CHECKS, BeforeTraffic
from llmops_assets.serving.replay_gate import replay_verdict
from llmops_assets.serving.rollout_steps import step_of
from llmops_assets.serving.together import Gone, together_of
from llmops_assets.specs.deployment import DeploymentSpec, Rollout
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from llmops_assets.verdict import Verdict
from resources.artifacts import open_artifacts
from resources.backends.reconcile import replicas_of
from resources.catalog import Catalog, Endpoint
from resources.catalog.erasures import ModelAffected, assert_not_affected
from resources.dataset_store import DatasetStore
from resources.gateway import GatewayAdmin, GatewayError
from resources.intent_runs import tags_of
from resources.model_server import ModelServers, ServerError
from resources.records import Records
from resources.retrieval.indexes import open_indexes
from resources.tracking import Tracking, UnknownModel

_REASONS = (
    ModelAffected,
    rollout.NotAdmitted,
    rollout.NotServed,
    rollout.RolloutFailed,
    UnknownModel,
    ServerError,
    GatewayError,
    Gone,
    OSError,
)


class DeploymentConfig(dg.Config):
    """What one deployment does otherwise than the endpoint's spec says."""

    model_ref: str | None = None
    """Another registered model, NAME@VERSION, for all users: rolling back is deploying the model before."""


@dg.asset(
    group_name="serving",
    partitions_def=endpoints,
    deps=[dg.AssetDep("registered_model", partition_mapping=dg.AllPartitionMapping())],
    kinds={"python", "huggingface"},
    owners=["team:ml"],
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(name, asset="deployment", blocking=True, partitions_def=endpoints, description=description)
        for name, description in CHECKS.items()
    ],
    description="The model servers behind an endpoint. A new model is started beside the old one, has to answer a "
    "completion as its evaluation did, and only then gets users: all of them (blue-green) or a share (canary). When it "
    "does not, the traffic stays where it was. Rolling back is materialising this with the previous model as "
    "`model_ref`.",
)
def deployment(
    context: dg.AssetExecutionContext,
    config: DeploymentConfig,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    tracking: dg.ResourceParam[Tracking],
    servers: dg.ResourceParam[ModelServers],
    gateway: dg.ResourceParam[GatewayAdmin],
    policy: dg.ResourceParam[Policy],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    name = context.partition_key
    with servers.exclusively(name):
        endpoint = _wanted(context, catalog, tracking, name, config.model_ref)
        before, wanted = endpoint.routes, catalog.intents.newest("deploy", name)
        catalog.update_endpoint(name, expected_revision=endpoint.revision, state="deploying", message="")
        last = records.find(DeploymentRecord, name)
        known = last.probed if last is not None else []
        replayed = partial(
            replay_verdict,
            spec=endpoint.spec,
            catalog=catalog,
            records=records,
            artifacts=open_artifacts(settings),
            cache=settings.root / "answers",
            policy=policy,
            servers=servers,
        )
        checked = BeforeTraffic(records, store, servers, replayed=replayed, known=known)
        try:
            model, adapter = _admitted(tracking, endpoint.spec, policy, records, catalog, settings)
            assert_not_affected(catalog, ref=model.ref, content_hash=model.content_hash)
            checked.note("admitted", Verdict(True, f"{model.ref} is what was registered, evaluated and approved"))
            beside = None if adapter is None else adapter.runtime(catalog.paths.stored)
            target = rollout.target_of(endpoint.spec, model, step_of(wanted), beside)
            target = rollout.as_grown(target, before, endpoint.spec.replicas.max)
            plan = rollout.plan(target, before, [backend.id for backend in catalog.backends(name)])
            steps = rollout.describe(target, plan)
            context.log.info("%s", "\n".join(steps))
            outcome = rollout.carry_out(
                target,
                plan,
                catalog=catalog,
                servers=servers,
                gateway=gateway,
                say=context.log.info,
                together=together_of(wanted, tracking, open_indexes(settings)),
                probe=lambda backends: checked.refusal(model, backends),
            )
        except _REASONS as error:
            if not checked.results:
                checked.note("admitted", Verdict(False, str(error)))
            yield from _results(checked)
            catalog.conclude_deployment(name, endpoint.revision, state="failed", message=str(error), outcome="failed")
            raise dg.Failure(
                f"{name} does not serve {endpoint.spec.model_ref}: {error}", allow_retries=False
            ) from error
        except BaseException as error:
            # Nothing that it decided: the intent stays open, and another run is asked for.
            message = f"the deployment broke off: {type(error).__name__} {error}"
            catalog.conclude_deployment(name, endpoint.revision, state="failed", message=message, outcome=None)
            raise
        # Users have the new model from here on, whatever becomes of the alias in the registry.
        left = f"not stopped yet: {'; '.join(outcome.left)}" if outcome.left else ""
        moves = rollout.alias_moves(endpoint.spec.environment, outcome.routes)
        live = {"state": "live", "outcome": None}
        pending = f"the alias {endpoint.spec.environment} of {moves} is not moved yet" if moves else ""
        unfinished = "; ".join(filter(None, [pending, left]))
        catalog.conclude_deployment(name, endpoint.revision, message=unfinished, served=model.ref, **live)
        fault = _move_alias(tracking, endpoint.spec.environment, moves, before) if moves else None
        message = "; ".join(filter(None, [f"{pending}: {fault}; it is tried again" if fault else "", left]))
        catalog.conclude_deployment(name, endpoint.revision, message=message, **live)
        if fault:
            context.log.warning(message)
        record = DeploymentRecord(
            endpoint=name,
            revision=endpoint.revision,
            phase=outcome.phase,
            model_ref=model.ref,
            content_hash=model.content_hash,
            routes=outcome.routes,
            engine=target.engine,
            first_completion=outcome.answer.text,
            startup_seconds=outcome.startup_seconds,
            left=outcome.left,
            probed=checked.probed,
        )
        records.save(name, record)
        yield from _results(checked)
        if outcome.routes != before:
            catalog.log("deployment", "endpoint.serve", name, model_ref=model.ref, revision=endpoint.revision)
        yield dg.MaterializeResult(
            metadata=_deployment_metadata(record, model, before, steps, outcome, catalog, settings)
            | {"alias": fault or (f"{endpoint.spec.environment}: {moves}" if moves else "stays where it was")},
            data_version=dg.DataVersion(_digest([model.ref, model.content_hash, rollout.shares(outcome.routes)])),
        )
        # Dagster has the result on record by now: a run that is killed before this line is asked for again, and finds
        # the endpoint as it shall be. While an alias is to be moved, not all is done.
        if wanted is not None and not fault:
            catalog.conclude_deployment(name, endpoint.revision, state="live", message=message)


def _results(checked: BeforeTraffic) -> Iterator[dg.AssetCheckResult]:
    """What was found before the switch, as Dagster has it on record."""
    for one in checked.results:
        rows = {"differing": [vars(difference) for difference in one.differing]}
        yield check_result(one.verdict, name=one.name, warn=one.warn, rows=rows)


def _wanted(
    context: dg.AssetExecutionContext, catalog: Catalog, tracking: Tracking, name: str, model_ref: str | None
) -> Endpoint:
    """The endpoint as it is wanted; with `model_ref`, after noting that this model is wanted for all users."""
    endpoint = catalog.endpoint(name)
    if endpoint.state == "deleting":
        raise dg.Failure(f"endpoint {name!r} is being deleted", allow_retries=False)
    intent = catalog.intents.newest("deploy", name)
    # A decision that an earlier version of the platform left open names the model alone.
    decided = intent.detail.get("model_ref") if intent is not None and intent.is_open else None
    ref = model_ref or decided
    if ref is None or (ref == endpoint.spec.model_ref and endpoint.spec.rollout == Rollout()):
        return endpoint
    try:
        model = tracking.model(ref)
    except UnknownModel as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    served_as = catalog.served_as(name, model.ref)
    spec = endpoint.spec.for_all_users(model.ref, model.family, model.job_type, served_as)
    if model_ref is None:
        return replace(endpoint, spec=spec)
    endpoint = catalog.want_endpoint(spec, "deployment")
    # It is carried out here: nobody needs to ask for another run.
    context.instance.add_run_tags(context.run_id, tags_of(f"deploy:{name}:{endpoint.revision}", 1))
    return endpoint


def _admitted(
    tracking: Tracking, spec: DeploymentSpec, policy: Policy, records: Records, catalog: Catalog, settings: Settings
) -> tuple[RegisteredModelRecord, ServedAdapter | None]:
    """The registered model that `spec` names, when it may be served and is what was registered and evaluated; and the
    adapter that it was merged of, where that is wanted."""
    version = tracking.version(spec.model_ref)
    model = tracking.model(version.ref)
    more = admission.refusals(model, spec.environment, records, policy, catalog)
    more += rag.refusals(spec, model, lambda: open_indexes(settings))
    adapter = None
    try:
        adapter = adapter_for(spec, model, records)
    except NoAdapter as error:
        more.append(str(error))
    rollout.admit(model, version.state, spec, policy, more=more, adapter=adapter)
    if not has_chat_template(model.path):
        raise rollout.NotAdmitted(f"the tokenizer of {model.ref} has no chat template, so it cannot be chatted with")
    return model, adapter


def _move_alias(tracking: Tracking, alias: str, ref: str, before: list[dict[str, Any]]) -> str | None:
    """Let an alias point to the model that has all users, and to none that had them before; why it does not, or None.

    The registry may be away, or answer anything: users have their model all the same.
    """
    try:
        new = tracking.version(ref)
        for other in {route["model_ref"] for route in before} - {new.ref}:
            old = tracking.version(other)
            if old.name != new.name and alias in old.aliases:
                tracking.delete_alias(old.name, alias)
        tracking.set_alias(new.name, alias, new.version)
    except Exception as error:  # noqa: BLE001  whatever the registry's trouble is, it does not undo the switch
        return f"{type(error).__name__} {error}".splitlines()[0]
    return None


def _deployment_metadata(
    record: DeploymentRecord,
    model: RegisteredModelRecord,
    before: list[dict[str, Any]],
    steps: list[str],
    outcome: rollout.Outcome,
    catalog: Catalog,
    settings: Settings,
) -> dict[str, Any]:
    backends = {backend.id: backend for backend in catalog.backends(record.endpoint)}
    rows = [
        dg.TableRecord(
            {
                "backend": id,
                "model": route["model_ref"],
                "users (%)": round(route["weight"] / len(replicas_of(route)), 2),
                "engine": backends[id].engine,
                "address": backends[id].url,
                "log": catalog.paths.stored(backends[id].log_path or ""),
            }
        )
        for route in record.routes
        for id in replicas_of(route)
    ]
    previous = ", ".join(f"{ref} {share:g} %" for ref, share in rollout.shares(before).items())
    card = f"{settings.mlflow_url}/#/models/{model.name}/versions/{model.version}"
    return {
        "model": model.ref,
        "routes": dg.MetadataValue.table(rows),
        "previous traffic": previous or "none",
        "first completion": outcome.answer.text,
        "first completion (s)": outcome.answer.seconds,
        "startup (s)": outcome.startup_seconds,
        "server": "was running already" if outcome.reused else "newly started",
        "phase": record.phase,
        "revision": record.revision,
        "steps": dg.MetadataValue.md("\n".join(f"1. {step}" for step in steps)),
        "not stopped yet": "; ".join(outcome.left) or "nothing",
        "address": f"{settings.gateway_url}/v1, model {record.endpoint}",
        "set aside": "; ".join(catalog.endpoint(record.endpoint).spec.notes()) or "nothing",
        "registry": link(model.ref, card),
        "model files": stored_path(model.path, catalog.paths),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
