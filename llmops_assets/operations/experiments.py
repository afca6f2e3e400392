"""A/B tests: starting, stopping, extending and concluding them, and what is known of them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

from llmops_assets.operations.access import authorise
from llmops_assets.operations.endpoints import refuse_affected
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.four_eyes import refuse_own
from llmops_assets.operations.running_tests import figures_of
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from llmops_assets.specs.deployment import DeploymentSpec
    from llmops_assets.specs.job_types import JobType
    from resources.catalog import Endpoint, Experiment

Winner = Literal["control", "treatment"] | str
"""An arm, or of several treatments the model itself."""


@dataclass(frozen=True)
class Started:
    """A running experiment, and whether this call began it; `notes` are what may keep it from a decision."""

    name: str
    endpoint: str
    new: bool
    notes: tuple[str, ...] = ()


def start_experiment(wiring: Wiring, actor: str, spec: ExperimentSpec) -> Started:
    """Start an A/B test between models that its endpoint serves.

    Raises Refused when the endpoint does not serve all of them, ModelAffected, or Conflict when another test runs
    there.
    """
    from llmops_assets.experiments.guardrails import too_few_users
    from llmops_assets.experiments.plan import plan_of

    authorise(wiring, actor, "experiment.create")
    # An alias may move while the test runs; the models that it compares may not.
    control, *treatments = (wiring.tracking.version(ref).ref for ref in spec.models)
    refuse_affected(wiring, *treatments)
    if len({control, *treatments}) < len(spec.models):
        raise Refused(f"some of {', '.join(spec.models)} are the same version: name every model once")
    refs = {"control": control, "treatment": treatments[0], "other_treatments": treatments[1:]}
    spec = spec.model_copy(update=refs)
    routes = wiring.catalog.endpoint(spec.endpoint).routes
    served = {route["model_ref"] for route in routes if not route.get("holdout")}
    if missing := [ref for ref in spec.models if ref not in served]:
        several = " (rollout.keep_models says how many models keep users beside the new one)" if treatments[1:] else ""
        raise Refused(
            f"endpoint {spec.endpoint!r} does not serve {' and '.join(missing)}: deploy it as a canary beside the "
            f"other{several}"
        )
    is_new = wiring.catalog.create_experiment(spec, actor)
    notes: dict[str, None] = {}
    for number, treatment in enumerate(spec.treatments, 1):
        plan = plan_of(spec, wiring.policy.experiments, datetime.now(UTC), treatment)
        notes |= dict.fromkeys(too_few_users(plan, spec.split[0] / (spec.split[0] + spec.split[number])))
    return Started(spec.name, spec.endpoint, is_new, tuple(notes))


@dataclass(frozen=True)
class Report:
    """An experiment as the catalog has it, and its newest analysis, None before the first."""

    experiment: "Experiment"
    analysis: AbReportRecord | None


def experiment_report(wiring: Wiring, name: str) -> Report:
    """The state of an experiment; raises NotFound."""
    return Report(wiring.catalog.experiment(name), wiring.records.find(AbReportRecord, name))


@dataclass(frozen=True)
class Ended:
    """An experiment that is over: what was decided, and whether this call decided or carried out anything."""

    name: str
    decision: str
    reason: str
    winner: str | None
    new: bool


def list_experiments(wiring: Wiring, state: str | None = None) -> "list[Experiment]":
    """Experiments, newest first; `state` is running or concluded."""
    return wiring.catalog.experiments(state)


def stop_experiment(wiring: Wiring, actor: str, name: str, reason: str | None = None) -> Ended:
    """End a running experiment without a winner: the control gets all users. One that is over stays as it was decided.

    Raises NotFound, or ModelAffected when the control has learned from rows that were erased.
    """
    authorise(wiring, actor, "experiment.stop")
    return _end(wiring, actor, name, "inconclusive", "control", f"stopped by {actor}{f': {reason}' if reason else ''}")


def conclude_experiment(wiring: Wiring, actor: str, name: str, winner: Winner) -> Ended:
    """Give all users to the model that a person chose, whatever the figures say; the deployment checks it as any other.

    A running experiment is decided so. One that was decided, and that nobody acted on (`auto_promote: false`, or the
    model was refused), is carried out so; one that was acted on is not reopened. Raises NotFound, Conflict, or
    ModelAffected.
    """
    authorise(wiring, actor, "experiment.conclude")
    experiment = wiring.catalog.experiment(name)
    ref = _model_of(experiment.spec, winner)
    if ref != experiment.spec.control:
        refuse_own(wiring, actor, "model.promote", ref)
    if experiment.decision is None:
        outcome = "rollback" if ref == experiment.spec.control else "promote"
        return _end(wiring, actor, name, outcome, winner, f"concluded by {actor}: {ref} gets all users")
    new = wiring.catalog.conclude_experiment(name, ref, actor, _for_all_users(wiring, experiment.spec.endpoint, ref))
    return Ended(name, experiment.decision, experiment.reason or "", ref, new)


def extend_experiment(wiring: Wiring, actor: str, name: str, hours: float) -> bool:
    """Let a running experiment last `hours` in all, which a sequence that holds at every look allows; False when it
    does so already.

    Raises NotFound, Refused beyond what the policy allows, or Conflict when it is over or lasts longer.
    """
    authorise(wiring, actor, "experiment.extend")
    most = wiring.policy.experiments.max_duration_hours
    if not 0 < hours <= most:
        raise Refused(f"an experiment lasts more than 0 and at most {most:g} hours (the policy's); got {hours:g}")
    return wiring.catalog.extend_experiment(name, hours, actor)


@dataclass(frozen=True)
class HoldoutGain:
    """What an endpoint's later models gained over the one that some users were left on."""

    sentence: str
    figures: dict[str, Any]


def holdout_gain(wiring: Wiring, endpoint: str) -> HoldoutGain:
    """The gain of an endpoint over its holdout; raises NotFound, or Refused where nobody is held out."""
    from llmops_assets.experiments import holdout

    wiring.catalog.endpoint(endpoint)
    found = holdout.gain(wiring.catalog, endpoint, wiring.policy.experiments, datetime.now(UTC))
    if found is None:
        raise Refused(
            f"nobody is held out on endpoint {endpoint!r}, or nobody asked since: write holdout: {{percent: 5}} in its "
            "deployment, and deploy the next model"
        )
    return HoldoutGain(holdout.sentence(found), holdout.figures(found))


def _model_of(spec: ExperimentSpec, winner: Winner) -> str:
    """The model of an arm; Refused for what is none, and for `treatment` where there are several."""
    if winner == "treatment" and spec.other_treatments:
        raise Refused(f"{spec.name!r} has several treatments: name one of {', '.join(spec.treatments)}")
    if winner in ("control", "treatment"):
        return str(getattr(spec, winner))
    if winner not in spec.models:
        raise Refused(f"{winner!r} takes no part in {spec.name!r}: name one of {', '.join(spec.models)}")
    return winner


def _end(wiring: Wiring, actor: str, name: str, outcome: str, winner: Winner, reason: str) -> Ended:
    experiment = wiring.catalog.experiment(name)
    ref = _model_of(experiment.spec, winner)
    carry_out = _for_all_users(wiring, experiment.spec.endpoint, ref) if experiment.decision is None else None
    new = experiment.decision is None and wiring.catalog.decide_experiment(
        name, outcome, reason, figures_of(wiring, name), actor, carry_out=carry_out
    )
    if new:
        return Ended(name, outcome, reason, ref, True)
    # It was over before, or somebody was faster: what is on record is what counts.
    known = wiring.catalog.experiment(name)
    return Ended(name, known.decision or outcome, known.reason or "", None, False)


def _for_all_users(wiring: Wiring, endpoint: str, ref: str) -> "Callable[[Endpoint], DeploymentSpec]":
    """What the endpoint shall serve when a model gets all its users; the registry is asked now."""
    from resources.catalog.erasures import assert_not_affected

    assert_not_affected(wiring.catalog, ref=ref)
    model = wiring.tracking.model(ref)
    job_type = cast("JobType", model.job_type)
    served_as = wiring.catalog.served_as(endpoint, model.ref)
    return lambda endpoint: endpoint.spec.for_all_users(model.ref, model.family, job_type, served_as)
