"""What may be asked of a rollout on its way: go on, wait, go back; and what it does by itself."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from llmops_assets.operations.access import authorise
from llmops_assets.operations.endpoints import Wanted, refuse_affected, refuse_own_promotion
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.running_tests import end_for
from llmops_assets.serving.rollout_steps import Judgement, Step, current_step, judge, previous_model
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.job_types import JobType
from llmops_assets.specs.rollout import Rollout
from llmops_assets.wiring import Wiring
from resources.catalog import Endpoint

ROLLOUT = "rollout"
"""The actor of what a rollout does by itself."""


@dataclass(frozen=True)
class Standing:
    """A rollout on its way: its step, what the step's traffic says, and why it waits, None where it does not."""

    step: Step
    judgement: Judgement
    waits: str | None


def rollout_of(wiring: Wiring, name: str) -> Standing | None:
    """Where an endpoint's rollout stands; None without one on its way. Raises NotFound."""
    catalog = wiring.catalog
    endpoint = catalog.endpoint(name)
    warm = any(
        one.model_ref != endpoint.spec.model_ref and one.wanted == "running" and one.state == "healthy"
        for one in catalog.backends(name)
    )
    step = current_step(endpoint, catalog.intents.newest("deploy", name), catalog.phases(name), warm)
    if step is None:
        return None
    rules = endpoint.spec.rollout
    judgement = judge(catalog.outcomes(endpoint=name, since=step.since), step, rules.analysis)
    experiment = catalog.running_experiments().get(name)
    waits = endpoint.held
    if experiment is not None:
        waits = f"the experiment {experiment} runs on it, whose shares are held until it is over"
    elif waits is None and rules.advance == "manual":
        waits = "it goes on by hand: llmops endpoint advance"
    return Standing(step, judgement, waits)


def advance_rollout(wiring: Wiring, actor: str, name: str, *, operation: str | None = None) -> Wanted:
    """Bring an endpoint's rollout to its next step, whatever holds it, but for an experiment that runs on it.

    Under the same `operation` it acts once. Raises NotFound, Conflict, or Refused where there is no next step.
    """
    authorise(wiring, actor, "endpoint.want")
    if (done := wiring.catalog.operations.done(operation, "advance", name)) is not None:
        return Wanted(name, int(done.result["revision"]), wiring.catalog.endpoint(name).spec.model_ref)
    endpoint, found = wiring.catalog.endpoint(name), rollout_of(wiring, name)
    if found is None or found.step.is_last:
        raise Refused(f"endpoint {name!r} is in no step that another one follows: it is {endpoint.state}")
    _refuse_under_experiment(wiring, name)
    refuse_own_promotion(wiring, actor, endpoint.spec)
    number = found.step.number + 1
    return _want(wiring, actor, endpoint, endpoint.spec, "advance", operation, {"step": number})


def promote(wiring: Wiring, actor: str, name: str, *, operation: str | None = None) -> Wanted:
    """Give the wanted model of an endpoint all users, without further steps. Raises as `advance_rollout`."""
    authorise(wiring, actor, "endpoint.want")
    if (done := wiring.catalog.operations.done(operation, "promote", name)) is not None:
        return Wanted(name, int(done.result["revision"]), wiring.catalog.endpoint(name).spec.model_ref)
    endpoint = wiring.catalog.endpoint(name)
    _refuse_under_experiment(wiring, name)
    refuse_own_promotion(wiring, actor, endpoint.spec)
    spec = endpoint.spec.model_copy(update={"rollout": Rollout()})
    return _want(wiring, actor, endpoint, spec, "promote", operation)


def roll_back(wiring: Wiring, actor: str, name: str, *, operation: str | None = None) -> Wanted:
    """Give all users of an endpoint the model that they had before the wanted one.

    Under the same `operation` it acts once. Raises NotFound, Conflict, ModelAffected, or Refused where none was there.
    """
    authorise(wiring, actor, "endpoint.want")
    if (done := wiring.catalog.operations.done(operation, "rollback", name)) is not None:
        return Wanted(name, int(done.result["revision"]), str(done.result.get("model_ref", "")))
    endpoint = wiring.catalog.endpoint(name)
    previous = previous_model(endpoint, wiring.catalog.phases(name))
    if previous is None:
        raise Refused(f"endpoint {name!r} served no other model than {endpoint.spec.model_ref} before")
    refuse_affected(wiring, previous)
    # Users come first: an experiment that runs there ends, on record.
    end_for(wiring, actor, name, f"go back to {previous}", force=True)
    model = wiring.tracking.model(previous)
    served_as = wiring.catalog.served_as(name, model.ref)
    spec = endpoint.spec.for_all_users(model.ref, model.family, cast(JobType, model.job_type), served_as)
    return _want(wiring, actor, endpoint, spec, "rollback", operation)


def hold_rollout(wiring: Wiring, actor: str, name: str, *, operation: str | None = None) -> bool:
    """Have an endpoint's rollout wait until somebody advances it; False when it waits already. Raises NotFound."""
    authorise(wiring, actor, "endpoint.want")
    wiring.catalog.endpoint(name)
    return wiring.catalog.hold_rollout(name, f"{actor} paused it", actor, operation=operation)


def look_at_rollout(wiring: Wiring, name: str) -> list[str]:
    """Have a rollout go on, or back, where its traffic says so and nothing holds it; what was done, a sentence each.

    Looked at twice, it acts once: what it asks for is named by the step that it leaves.
    """
    catalog = wiring.catalog
    if name not in catalog.endpoint_names():
        return []
    found = rollout_of(wiring, name)
    if found is None or found.waits is not None:
        return []
    rules, step = catalog.endpoint(name).spec.rollout, found.step
    operation = f"{ROLLOUT}:{name}:{catalog.endpoint(name).revision}"
    if found.judgement.decision == "fail":
        wanted = roll_back(wiring, ROLLOUT, name, operation=f"{operation}:back")
        return [f"{name}: back to {wanted.model_ref} for all users: {found.judgement.reason}"]
    age = (datetime.now(UTC) - step.since).total_seconds()
    if not rules.steps or step.is_last or found.judgement.decision == "wait" or age < rules.pause_seconds:
        return []
    advance_rollout(wiring, ROLLOUT, name, operation=f"{operation}:on")
    return [f"{name}: {rules.steps[step.number + 1]} % of the users to {step.new}: {found.judgement.reason}"]


def _refuse_under_experiment(wiring: Wiring, name: str) -> None:
    experiment = wiring.catalog.running_experiments().get(name)
    if experiment is not None:
        raise Refused(
            f"the experiment {experiment} runs on endpoint {name!r}, and its shares are held: conclude it first"
        )


def _want(
    wiring: Wiring,
    actor: str,
    endpoint: Endpoint,
    spec: DeploymentSpec,
    kind: str,
    operation: str | None,
    detail: dict[str, int] | None = None,
) -> Wanted:
    revision = wiring.catalog.want_endpoint_once(
        spec, actor, kind=kind, operation=operation, detail=detail, expected_revision=endpoint.revision
    )
    return Wanted(endpoint.name, revision, spec.model_ref)
