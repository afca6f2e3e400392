"""Analyses running A/B tests, and acts on what they decide."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets.experiments.decision import Decision, action_for
from llmops_assets.partitions import experiments
from resources.catalog import Catalog, Experiment
from resources.erasures import ModelAffected, assert_not_affected
from sensors.runs import run_of

LEAST_GAP = timedelta(seconds=15)
NOTHING = "0-0-0"


def seen(experiment: Experiment, catalog: Catalog, now: datetime) -> str:
    """What an analysis would look at: requests, ratings, users with a closed rating window, and whether it is over."""
    window = timedelta(hours=experiment.spec.rating_window_hours)
    counts = catalog.progress(experiment.name, first_seen_before=now - window)
    over = now - experiment.started_at >= timedelta(hours=experiment.spec.duration_hours) + window
    return "-".join(map(str, counts)) + ("-over" if over else "")


def gap(age: timedelta) -> timedelta:
    """Time between two looks at a test of that age: each costs a run; the rule holds however often it is applied."""
    return max(LEAST_GAP, age / 100)


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
        last: dict[str, dict] = json.loads(context.cursor) if context.cursor else {}
        looks, requests = {}, []
        for experiment in catalog.experiments("running"):
            name = experiment.name
            sight, before = seen(experiment, catalog, now), last.get(name, {"at": 0.0, "seen": NOTHING})
            looks[name] = before
            if (
                sight != before["seen"]
                and now.timestamp() - before["at"] >= gap(now - experiment.started_at).total_seconds()
            ):
                looks[name] = {"at": now.timestamp(), "seen": sight}
                key = f"{name}:{experiment.started_at.timestamp()}:{sight}"
                requests.append(run_of(key, name, "ab_report"))
        new = [request.partition_key for request in requests if request.partition_key not in known]
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[experiments.build_add_request(new)],
            cursor=json.dumps(looks),
        )

    return running_experiments


def promotion(interval: int) -> dg.SensorDefinition:
    """The sensor that carries out decisions, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="decided_experiments",
        target=dg.AssetSelection.assets("deployment"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A decided A/B test gives all traffic of its endpoint to the winner, or back to the control.",
    )
    def decided_experiments(context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog]) -> dg.SensorResult:
        requests = []
        for experiment in catalog.experiments("concluded"):
            if experiment.acted_at is not None or experiment.decision is None:
                continue
            endpoint = catalog.endpoint(experiment.endpoint)
            decision = Decision(experiment.decision, experiment.reason or "", experiment.decided_at)
            action = action_for(decision, experiment.spec, endpoint.spec)
            if action is not None and (refusal := _affected(catalog, action.model_ref)):
                # The decision stands, but nobody acts on it: a person has to choose another model.
                context.log.error(refusal)
                catalog.update_endpoint(endpoint.name, message=refusal)
                catalog.log("promotion", "experiment.withheld", experiment.name, reason=refusal)
                action = None
            if action is not None:
                key = f"{experiment.name}:{experiment.started_at.timestamp()}:{action.model_ref}"
                config = {"ops": {"deployment": {"config": {"model_ref": action.model_ref}}}}
                requests.append(run_of(key, endpoint.name, "deployment", config=config))
            catalog.mark_acted(experiment.name)
        return dg.SensorResult(run_requests=requests)

    return decided_experiments


def _affected(catalog: Catalog, model_ref: str) -> str | None:
    """Why a model may get no more users, or None when it may."""
    try:
        assert_not_affected(catalog, ref=model_ref)
    except ModelAffected as error:
        return str(error)
    return None
