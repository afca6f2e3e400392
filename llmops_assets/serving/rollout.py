"""How an endpoint moves from the models it serves to the one that is wanted, without a request going astray."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.serving import routing
from llmops_assets.serving.adapters import ServedAdapter
from llmops_assets.serving.rag import retriever, retriever_id
from llmops_assets.serving.routing import NotServed, shares, without_holdout
from llmops_assets.serving.together import Switch, Together
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.deployment import DeploymentSpec, Holdout, RagServing
from llmops_assets.specs.families import verify_family
from llmops_assets.specs.policy import Policy
from resources.backends.reconcile import backends_of, replicas_of
from resources.backends.serve_command import ADAPTER
from resources.catalog import Backend, Catalog
from resources.gateway import GatewayAdmin, GatewayError
from resources.gpus import Device, discover
from resources.model_server import Answer, ModelServers, ServerError, new_backend
from resources.server_guard import with_content

__all__ = ["NotServed", "shares"]

_DRAIN_SECONDS = 30.0


class NotAdmitted(ValueError):
    """A model that may not be served here; the message lists every reason."""


class RolloutFailed(RuntimeError):
    """The new model does not answer; traffic is where it was, and what had been started is stopped again."""


@dataclass(frozen=True)
class Target:
    """What an endpoint shall serve, and to which percentage of its users."""

    endpoint: str
    model_ref: str
    model_path: str
    content_hash: str
    engine: str
    runtime: dict[str, Any]
    replicas: int = 1
    share: int = 100
    warm_seconds: float = 0.0
    rag: RagServing | None = None
    keep_models: int = 1
    holdout: Holdout | None = None


@dataclass(frozen=True)
class Plan:
    """Backends that must answer first, then the routes, then the backends that are stopped."""

    serve: tuple[str, ...]
    routes: list[dict[str, Any]]
    retire: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a rollout came to; `left` names what could not be stopped, with the reason."""

    phase: int
    routes: list[dict[str, Any]]
    answer: Answer
    startup_seconds: float
    reused: bool
    left: list[str] = field(default_factory=list)


def device_reasons(spec: DeploymentSpec, devices: Sequence[Device]) -> list[str]:
    """Why `devices` are not enough for one replica of `spec`; none for an endpoint on the CPU.

    A GPU whose memory is not known is not refused for it.
    """
    wanted, least = spec.resources.gpus, spec.resources.gpu_memory_gb
    if wanted == 0:
        return []
    gpus = [device for device in devices if device.kind == "cuda"]
    if len(gpus) < wanted:
        return [f"resources.gpus asks for {wanted}, and this machine has {len(gpus)}: lower it, or 0 for the CPU"]
    known = [device for device in gpus if device.memory_bytes]
    small = [device for device in known if least is not None and device.memory_bytes < least * 10**9]
    if len(gpus) - len(small) >= wanted:
        return []
    found = ", ".join(f"{device.name} with {device.memory_bytes / 10**9:.0f} GB" for device in small)
    return [f"resources.gpu_memory_gb asks for {least} GB on each of {wanted} GPUs, and here are: {found}"]


def admit(
    model: RegisteredModelRecord,
    state: str,
    spec: DeploymentSpec,
    policy: Policy,
    find_devices: Callable[[], Sequence[Device]] = discover,
    more: Sequence[str] = (),
    adapter: ServedAdapter | None = None,
) -> None:
    """Check that a registered model may be served as `spec` wants; raise NotAdmitted with every reason why not.

    `state` is the model's in the registry: draft, approved, staging, production or archived. A model that its gate
    withheld is not in the registry, so it never comes this far. `more` are further reasons why not. `adapter` is what
    it was merged of, where the spec wants that served.
    """
    reasons = []
    if state == "archived":
        reasons.append(f"{model.ref} is archived")
    elif spec.environment == "production" and state not in ("approved", "staging", "production"):
        reasons.append(f"{model.ref} is a {state}, and production serves approved models only: have it approved first")
    if model.job_type != spec.job_type:
        reasons.append(f"the spec says job_type {spec.job_type}, but {model.ref} was made by {model.job_type}")
    if model.family != spec.model_family:
        reasons.append(f"the spec says model_family {spec.model_family}, but {model.ref} is a {model.family} model")
    if model.job_type not in policy.serving.targets.get(spec.serve_target, []):
        reasons.append(f"serve_target {spec.serve_target} is not for models made by {model.job_type}")
    if spec.serve_target == "RAG" and spec.rag is None:
        reasons.append("serve_target RAG needs an index to answer from: write rag: {index: NAME} (llmops index list)")
    if spec.load_mode != "merged" and adapter is None and not more:
        reasons.append("load_mode base+adapter needs the adapter's own record: the registry holds merged models")
    if spec.resources.gpus:
        reasons += device_reasons(spec, find_devices())
    config = Path(model.path) / "config.json"
    if not config.is_file():
        reasons.append(f"the registry says that {model.ref} lies in {model.path}, but there is no model")
    else:
        try:
            verify_family(policy.families, model.family, json.loads(config.read_text(encoding="utf-8")), spec.job_type)
        except SpecError as error:
            reasons.append(str(error))
    reasons += [reason for reason in more if reason not in reasons]
    if reasons:
        raise NotAdmitted("; ".join(reasons))


def target_of(
    spec: DeploymentSpec, model: RegisteredModelRecord, step: int = 0, adapter: Mapping[str, Any] | None = None
) -> Target:
    """What `spec` asks for with the registered `model`, in a step of its rollout; `adapter` is what a server is told of
    an adapter and its base, where they are served instead."""
    return Target(
        endpoint=spec.endpoint,
        model_ref=model.ref,
        model_path=model.path,
        content_hash=model.content_hash,
        engine=spec.engine,
        runtime={
            "max_input_tokens": spec.runtime.max_input_tokens,
            "max_output_tokens": spec.runtime.max_output_tokens,
            "device": "cpu" if spec.resources.gpus == 0 else "cuda",
            # As the evaluation loads it: on the CPU in full precision, whatever the weights were saved in.
            "dtype": "float32" if spec.resources.gpus == 0 else "auto",
            # Left out where it is one: the ids of backends are made of what stands here.
            **({"gpus": spec.resources.gpus} if spec.resources.gpus > 1 and spec.engine == "vllm" else {}),
            **({"tool_call_parser": parser} if (parser := spec.runtime.tool_call_parser) is not None else {}),
            **_where(spec),
            **(adapter or {}),
        },
        # Somebody else's address is one, however many servers are behind it.
        replicas=spec.replicas.min if spec.runtime.backend != "url" else 1,
        share=spec.rollout.share(step),
        warm_seconds=spec.rollout.kept_warm,
        rag=spec.rag,
        keep_models=spec.rollout.keep_models,
        holdout=spec.holdout,
    )


def _where(spec: DeploymentSpec) -> dict[str, Any]:
    """What runs the servers, less what is left out: those of this machine are what they always were."""
    runtime = spec.runtime
    if runtime.backend == "local":
        return {}
    if runtime.backend == "url":
        known = {"url": runtime.url, "model": runtime.model, "api_key_variable": runtime.api_key_variable}
        return {"backend": "url", **{name: value for name, value in known.items() if value is not None}}
    image = {"image": spec.image} if spec.image is not None else {}
    return {"backend": runtime.backend, "serve_target": spec.serve_target, **image}


def backend_id(target: Target, replica: int) -> str:
    """The id of a backend: the same for the same model, engine and limits on the same endpoint.

    So a rollout that was cut off goes on with what it had started, and a model that is deployed twice starts once.
    """
    content = [target.model_ref, target.content_hash, target.engine, target.runtime]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    return f"{target.endpoint}-{digest}-{replica}"


def as_grown(target: Target, routes: list[dict[str, Any]], most: int) -> Target:
    """A target with as many replicas as it has by now: a deployment takes away none that was added for its load."""
    routed = {id for route in routes for id in replicas_of(route)}
    return replace(target, replicas=max(target.replicas, sum(backend_id(target, n) in routed for n in range(most))))


def plan(target: Target, routes: list[dict[str, Any]], backends: list[str]) -> Plan:
    """Plan the way from `routes` to `target`; `backends` are the ids on record.

    Who gets which share is `routing.planned`'s to say; it may raise NotServed.
    """
    serve = tuple(backend_id(target, replica) for replica in range(target.replicas))
    retrieval: dict[str, Any] = {}
    if target.rag is not None:
        found_by = retriever_id(target.endpoint, target.rag, target.model_path)
        retrieval = {"retriever": found_by, "rag": target.rag.model_dump(mode="json", exclude_none=True)}
    new = {**route_to(target.model_ref, serve, target.share), **retrieval}
    planned = routing.planned(new, target.share, routes, keep_models=target.keep_models, holdout=target.holdout)
    kept = {id for route in planned for id in backends_of(route)}
    return Plan(serve, planned, tuple(id for id in backends if id not in kept))


def route_to(model_ref: str, backends: Sequence[str], weight: float) -> dict[str, Any]:
    """The route of a model: its servers share its users, each request going to the one with the fewest under way."""
    several = {"backend_ids": list(backends)} if len(backends) > 1 else {}
    return {"backend_id": backends[0], "model_ref": model_ref, "weight": weight, **several}


def describe(target: Target, plan: Plan) -> list[str]:
    """The plan in sentences, for the log and the asset's page."""
    steps = [f"start {', '.join(plan.serve)} with {target.model_ref} ({target.engine}), unless it runs already"]
    if adapter := target.runtime.get(ADAPTER):
        steps.append(f"serve the adapter {adapter} on its base, as it was trained, instead of the merged model")
    if target.rag is not None:
        id = retriever_id(target.endpoint, target.rag, target.model_path)
        steps.append(f"start {id}, which finds passages in {target.rag.index}")
    steps.append("wait until each is healthy and has answered a completion")
    steps.append(
        "route "
        + ", ".join(f"{r['weight']:g} % to {', '.join(replicas_of(r))} ({r['model_ref']})" for r in plan.routes)
    )
    if plan.retire:
        steps.append(f"drain and stop {', '.join(plan.retire)}")
    return steps


def carry_out(
    target: Target,
    plan: Plan,
    *,
    catalog: Catalog,
    servers: ModelServers,
    gateway: GatewayAdmin,
    say: Callable[[str], None],
    probe: Callable[[list[Backend]], str | None] = lambda backends: None,
    together: Together | None = None,
) -> Outcome:
    """Carry out a plan; what changes `together` with the routes does so with them. `probe` looks at the new backends
    once they answer, before they get users, and says why they may not have them; None where they may. Hold the
    endpoint's lock (`servers.exclusively`) around planning and this.

    Raises RolloutFailed when a new backend does not answer or may get no users, or the gateway does not follow: the
    routes are then as before, and what was started is stopped. An old backend that does not stop is no failure of the
    rollout; it is named in the outcome, stays on record, and is stopped at the next opportunity.
    """
    before = catalog.endpoint(target.endpoint).routes
    routed = {id for route in before for id in backends_of(route)}
    switch = (together or Together()).bound(target.endpoint, catalog, gateway)
    begun = time.monotonic()
    running = {b.id for b in catalog.backends(target.endpoint) if b.state == "healthy" and servers.health(b) == "ok"}
    beside = () if target.rag is None else (retriever_id(target.endpoint, target.rag, target.model_path),)
    started = [id for id in (*beside, *plan.serve) if id not in running]
    ours = [id for id in started if id not in routed]
    try:
        answer, serving = _serve(target, plan, catalog, servers, say)
        if (refusal := probe(serving)) is not None:
            raise ServerError(refusal)
        startup = time.monotonic() - begun
        phase = switch.to(plan.routes)
    except (ServerError, GatewayError) as error:
        left = _undo(target.endpoint, before, ours, switch, gateway, servers)
        raise RolloutFailed(
            f"{target.model_ref} does not serve on {target.endpoint}, its traffic is as before: {error}"
            + "".join(f"; not stopped yet: {fault}" for fault in left)
        ) from error
    except BaseException:
        # Someone interrupts the run.
        _undo(target.endpoint, before, ours, switch, gateway, servers)
        raise
    say(f"phase {phase} is served")
    return Outcome(
        phase, plan.routes, answer, startup, reused=not started, left=_retire(target, plan, gateway, servers, say)
    )


def _serve(
    target: Target, plan: Plan, catalog: Catalog, servers: ModelServers, say: Callable[[str], None]
) -> tuple[Answer, list[Backend]]:
    """Have every backend of the plan wanted and answering; the first answer, and the backends as they were observed."""
    if target.rag is not None:
        servers.want(retriever(target.endpoint, target.rag, target.model_ref, target.model_path))
    for id in plan.serve:
        servers.want(
            new_backend(
                id,
                endpoint=target.endpoint,
                model_ref=target.model_ref,
                model_path=target.model_path,
                engine=target.engine,
                runtime=with_content(target.runtime, target.content_hash),
            )
        )
    answers, backends = [], []
    if target.rag is not None:
        id = retriever_id(target.endpoint, target.rag, target.model_path)
        servers.wait_observed(id)
        say(f"{id} searches {target.rag.index}")
    for id in plan.serve:
        answers.append(servers.wait_observed(id))
        backends.append(catalog.backend(id))
        say(f"{id} answers at {backends[-1].url}, in {answers[-1].seconds:.2f} s: {answers[-1].text!r}")
    return answers[0], backends


def _retire(
    target: Target, plan: Plan, gateway: GatewayAdmin, servers: ModelServers, say: Callable[[str], None]
) -> list[str]:
    """Let what has no users any more go, or keep it warm for a way back; what could not be stopped."""
    retired = list(plan.retire)
    if retired and target.warm_seconds:
        until = datetime.now(UTC) + timedelta(seconds=target.warm_seconds)
        servers.unwant(retired, warm_until=until)
        say(f"{', '.join(retired)} are kept warm until {until:%H:%M:%S} UTC, for a way back")
        return []
    in_flight = gateway.drain(retired, _DRAIN_SECONDS)
    if in_flight:
        say(f"{in_flight} requests are still in flight after {_DRAIN_SECONDS:.0f} s; their servers are stopped now")
    return _stop(retired, servers)


def _undo(
    endpoint: str,
    routes: list[dict[str, Any]],
    started: list[str],
    switch: Switch,
    gateway: GatewayAdmin,
    servers: ModelServers,
) -> list[str]:
    """Put the routes back and stop what was started; what could not be stopped."""
    phase = switch.back(routes)
    try:
        gateway.wait_for(endpoint, phase)
    except GatewayError as error:
        # It may still send requests to what was started: that stays until the endpoint is reconciled.
        return [f"{', '.join(started)}, as the gateway does not follow: {error}"] if started else []
    return _stop(started, servers)


def _stop(ids: list[str], servers: ModelServers) -> list[str]:
    servers.unwant(ids)
    return servers.wait_gone(ids)


def alias_moves(environment: str, routes: list[dict[str, Any]]) -> str | None:
    """The model that the alias of an environment shall point to now; None where no alias moves.

    While a canary runs, the alias stays where it was; a development endpoint has none. Who is held out does not count.
    """
    serving = {route["model_ref"] for route in without_holdout(routes)}
    return serving.pop() if environment in ("staging", "production") and len(serving) == 1 else None
