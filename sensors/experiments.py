"""Analyses running A/B tests, and acts on what they decide."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets.experiments.decision import Decision, action_for
from llmops_assets.partitions import experiments
from llmops_assets.specs.deployment import DeploymentSpec, Rollout
from resources.catalog import Catalog, Endpoint, Experiment

LEAST_GAP = timedelta(seconds=15)


def due(experiment: Experiment, catalog: Catalog, now: datetime) -> str:
    """What an analysis would look at now, as a run key: a new one only when there is something new to see.

    Looks become rarer as a test grows old (at most one in each hundredth of its age), because each costs a run; the
    decision rule holds however often it is applied.
    """
    spec, age = experiment.spec, now - experiment.started_at
    slot = age // max(LEAST_GAP, age / 100)
    window = timedelta(hours=spec.rating_window_hours)
    seen = catalog.progress(experiment.name, first_seen_before=now - window)
    over = age >= timedelta(hours=spec.duration_hours) + window
    return (
        f"{experiment.name}:{experiment.started_at.timestamp()}:{'-'.join(map(str, seen))}:{'over' if over else slot}"
    )


def analysis(interval: int) -> dg.SensorDefinition:
    """The sensor that has running experiments analysed, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="running_experiments",
        target=dg.AssetSelection.assets("ab_report"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A running A/B test is analysed when there are new ratings, and at its end.",
    )
    def running_experiments(context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog]) -> dg.SensorResult:
        known = set(context.instance.get_dynamic_partitions(experiments.name))
        now = datetime.now(UTC)
        running = catalog.experiments("running")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=due(e, catalog, now), partition_key=e.name) for e in running],
            dynamic_partitions_requests=[
                experiments.build_add_request([e.name for e in running if e.name not in known])
            ],
        )

    return running_experiments


def switched(endpoint: Endpoint, model_ref: str) -> DeploymentSpec:
    """The endpoint's spec with all traffic on one model."""
    return endpoint.spec.model_copy(update={"model_ref": model_ref, "rollout": Rollout(strategy="blue-green")})


def promotion(interval: int) -> dg.SensorDefinition:
    """The sensor that carries out decisions, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="decided_experiments",
        target=dg.AssetSelection.assets("deployment"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A decided A/B test gives all traffic of its endpoint to the winner, or back to the control.",
    )
    def decided_experiments(catalog: dg.ResourceParam[Catalog]) -> dg.SkipReason:
        done = []
        for experiment in catalog.experiments("concluded"):
            if experiment.acted_at is not None or experiment.decision is None:
                continue
            endpoint = catalog.endpoint(experiment.endpoint)
            decision = Decision(experiment.decision, experiment.reason or "", experiment.decided_at)
            action = action_for(decision, experiment.spec, endpoint.spec)
            if action is not None:
                # What is wanted of an endpoint is brought about by `wanted_endpoints`.
                catalog.want_endpoint(switched(endpoint, action.model_ref), actor=f"experiment {experiment.name}")
                done.append(f"{experiment.name}: {action.model_ref} gets all traffic of {action.endpoint}")
            catalog.mark_acted(experiment.name)
        return dg.SkipReason("; ".join(done) or "no decision waits to be carried out")

    return decided_experiments
