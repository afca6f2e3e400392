"""What a deployment would do, said before anything is done: nothing here writes."""

from dataclasses import dataclass, field
from typing import Any, Literal

from llmops_assets.operations.access import authorise
from llmops_assets.operations.endpoints import refuse_affected
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.serving import DeploymentRecord
from llmops_assets.serving import instructions, probing, rollout
from llmops_assets.serving.adapters import NoAdapter, ServedAdapter, adapter_for
from llmops_assets.serving.admission import refusals
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.wiring import Wiring
from resources.backends.protocol import ServerError, new_backend
from resources.catalog import Backend, NotFound
from resources.catalog.erasures import ModelAffected
from resources.prompts import Prompts, UnknownPrompt
from resources.tracking import UnknownModel

State = Literal["passes", "fails", "is asked before the switch"]


@dataclass(frozen=True)
class CheckNow:
    """A check that stands before the switch, as it would be decided now."""

    name: str
    state: State
    text: str


@dataclass(frozen=True)
class Preview:
    """What a deployment would do, in order. `refused` are the reasons why it would change nothing, none where it goes
    on; `routes` are the shares of the models after each step of the rollout."""

    endpoint: str
    model_ref: str
    backend: str
    checks: list[CheckNow]
    steps: list[str]
    routes: list[dict[str, float]]
    drained: list[str]
    refused: list[str]
    notes: list[str] = field(default_factory=list)


def preview_deployment(wiring: Wiring, actor: str, spec: DeploymentSpec) -> Preview:
    """What `llmops deploy` with this spec would come to as things are; the catalog, the registry, processes and routes
    stay as they are. Raises Forbidden alone: all else is a reason in the answer."""
    authorise(wiring, actor, "endpoint.want")
    refused: list[str] = []
    checks: list[CheckNow] = []
    notes = list(spec.notes())
    try:
        refuse_affected(wiring, spec.model_ref)
    except ModelAffected as error:
        refused.append(str(error))
    before, backends = _now(wiring, spec, refused, notes)
    try:
        version = wiring.tracking.version(spec.model_ref)
        model = wiring.tracking.model(version.ref)
    except UnknownModel as error:
        refused.append(str(error))
        return Preview(spec.endpoint, spec.model_ref, _backend(wiring, spec), checks, [], [], [], refused, notes)
    if (other := _told_otherwise(wiring, spec, model)) is not None:
        notes.append(other)
    admitted, adapter = _admitted(wiring, spec, model, version.state)
    checks.append(admitted)
    beside = None if adapter is None else adapter.runtime(wiring.catalog.paths.stored)
    target = rollout.target_of(spec, model, adapter=beside)
    try:
        plan = rollout.plan(target, before, [one.id for one in backends])
    except rollout.NotServed as error:
        refused.append(str(error))
        return Preview(spec.endpoint, model.ref, _backend(wiring, spec), checks, [], [], [], refused, notes)
    checks += _asked_of_servers(wiring, model, target, plan, backends)
    if wiring.policy.serving.replay.required:
        checks.append(CheckNow("replayed", "is asked before the switch", "it would be asked what users asked lately"))
    refused += [f"{check.name}: {check.text}" for check in checks if check.state == "fails"]
    number = len(spec.rollout.steps or [0])
    routes = before
    shown: list[dict[str, float]] = []
    for step in range(number):
        routes = rollout.plan(rollout.target_of(spec, model, step, beside), routes, []).routes
        shown.append(rollout.shares(routes))
        if len(shown[-1]) == 1:
            break
    steps = rollout.describe(target, plan)
    if spec.rollout.steps and len(shown) > 1:
        steps += _later_steps(spec, shown)
    moves = rollout.alias_moves(spec.environment, plan.routes)
    if moves:
        steps.append(f"move the alias {spec.environment} of the registry to {moves}")
    drained = list(plan.retire)
    return Preview(spec.endpoint, model.ref, _backend(wiring, spec), checks, steps, shown, drained, refused, notes)


def _now(
    wiring: Wiring, spec: DeploymentSpec, refused: list[str], notes: list[str]
) -> tuple[list[dict[str, Any]], list[Backend]]:
    """The routes and servers of the endpoint as they are; what stands against a deployment, or beside it, is noted."""
    try:
        endpoint = wiring.catalog.endpoint(spec.endpoint)
    except NotFound:
        notes.append(f"{spec.endpoint} is a new endpoint")
        return [], []
    if endpoint.state == "deleting":
        refused.append(
            f"endpoint {spec.endpoint!r} is being deleted; wait until `llmops endpoint list` no longer has it"
        )
    if endpoint.state in ("pending", "deploying"):
        notes.append(f"revision {endpoint.revision} is still {endpoint.state}, and would be superseded")
    experiment = wiring.catalog.running_experiments().get(spec.endpoint)
    if experiment is not None:
        refused.append(f"the experiment {experiment} runs on it, and would end: conclude it first, or give --force")
    return endpoint.routes, wiring.catalog.backends(spec.endpoint)


def _admitted(
    wiring: Wiring, spec: DeploymentSpec, model: RegisteredModelRecord, state: str
) -> tuple[CheckNow, ServedAdapter | None]:
    """Whether the model may be served so, and the adapter that would be, whose folders are hashed for it."""
    more = refusals(model, spec.environment, wiring.records, wiring.policy, wiring.catalog)
    adapter = None
    try:
        adapter = adapter_for(spec, model, wiring.records)
    except NoAdapter as error:
        more.append(str(error))
    try:
        rollout.admit(model, state, spec, wiring.policy, more=more, adapter=adapter)
    except rollout.NotAdmitted as error:
        return CheckNow("admitted", "fails", str(error)), adapter
    return CheckNow("admitted", "passes", f"{model.ref} is what was registered, evaluated and approved"), adapter


def _told_otherwise(wiring: Wiring, spec: DeploymentSpec, model: RegisteredModelRecord) -> str | None:
    """What the endpoint would tell the model that its training did not; None where both tell the same."""
    try:
        prompt = None if spec.prompt is None else Prompts(wiring.tracking).resolve(spec.prompt)
    except UnknownPrompt as error:
        return str(error)
    told = instructions.told_as_trained(model, prompt, wiring.records, wiring.store)
    return None if told.passed else told.text


def _asked_of_servers(
    wiring: Wiring, model: RegisteredModelRecord, target: rollout.Target, plan: rollout.Plan, backends: list[Backend]
) -> list[CheckNow]:
    """The checks of the new servers: of the template by the folder, of the answers by what is on record."""
    known = {one.id: one for one in backends}
    runtime = target.runtime
    would = [
        known.get(id)
        or new_backend(
            id,
            endpoint=target.endpoint,
            model_ref=target.model_ref,
            model_path=target.model_path,
            engine=target.engine,
            runtime=runtime,
        )
        for id in plan.serve
    ]
    try:
        template = probing.served_template(model, would, wiring.records)
        last = wiring.records.find(DeploymentRecord, target.endpoint)
        passed = set(last.probed) if last is not None else set()
        fresh = [one.id for one in would if probing.probe_key(one, model, wiring.records) not in passed]
    except (LookupError, OSError, ValueError, ServerError) as error:
        return [CheckNow("template_parity", "fails", str(error))]
    checks = [CheckNow("template_parity", "passes" if template.passed else "fails", template.text)]
    text = f"{', '.join(fresh)} would be asked {probing.COMPARED} questions of the evaluation"
    if not fresh:
        return [*checks, CheckNow("answers_as_evaluated", "passes", "these very servers answered as evaluated before")]
    return [*checks, CheckNow("answers_as_evaluated", "is asked before the switch", text)]


def _later_steps(spec: DeploymentSpec, shown: list[dict[str, float]]) -> list[str]:
    rules = spec.rollout
    how = f"after {rules.pause_seconds} s, {rules.analysis.min_requests} requests and an analysis that passes"
    if rules.advance == "manual":
        how = "when somebody asks for it (llmops endpoint advance)"
    steps = [", ".join(f"{share:g} % to {ref}" for ref, share in one.items()) for one in shown[1:]]
    warm = f"keep the servers of the old model warm for {rules.kept_warm} s after the last step"
    return [*(f"route {one}, {how}" for one in steps), *([warm] if rules.kept_warm else [])]


def _backend(wiring: Wiring, spec: DeploymentSpec) -> str:
    kind = spec.runtime.backend
    if kind == "local":
        return f"local: {spec.engine} as processes of this machine"
    if kind == "url":
        return f"url: {spec.runtime.url}, which somebody else runs"
    image = spec.image or f"{wiring.settings.image_registry}/{wiring.policy.images.serve[spec.serve_target]}"
    return f"{kind}: {spec.engine} in the image {image}"
