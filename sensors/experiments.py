"""Has running A/B tests analysed when there is something new to look at, and at their end."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets.partitions import experiments
from llmops_assets.records.experiments import AbReportRecord
from resources import intent_runs
from resources.attempts import FIRST_PAUSE, Ask, next_step
from resources.catalog import Catalog, Experiment
from resources.records import Records
from sensors.runs import run_for

LEAST_GAP = timedelta(seconds=15)
NOTHING = "0-0-0"
ATTEMPTS = 3
"""How often one look is tried; the next, at more traffic, is tried as often again."""


def traffic(experiment: Experiment, catalog: Catalog, now: datetime) -> str:
    """What an analysis would look at: requests, ratings, users with a closed rating window, and whether it is over."""
    window = timedelta(hours=experiment.spec.rating_window_hours)
    counts = catalog.progress(experiment.name, first_seen_before=now - window)
    # A treatment that lost its users is looked at, whatever came in.
    dropped = "".join(f"-without-{model}" for model in sorted(catalog.dropped_arms.of(experiment.name)))
    over = now - experiment.started_at >= timedelta(hours=experiment.spec.duration_hours) + window
    return "-".join(map(str, counts)) + dropped + ("-over" if over else "")


def gap(age: timedelta) -> timedelta:
    """Time between two looks at a test of that age: each costs a run; the rule holds however often it is applied."""
    return max(LEAST_GAP, age / 100)


def make(interval: int, first_pause: timedelta = FIRST_PAUSE) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="running_experiments",
        target=dg.AssetSelection.assets("ab_report"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A running A/B test is analysed when there are new ratings, and at its end, and at once when "
        "a gateway dropped a treatment. An analysis that was cancelled or died is asked for again.",
    )
    def running_experiments(
        context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog], records: dg.ResourceParam[Records]
    ) -> dg.SensorResult | dg.SkipReason:
        running = catalog.experiments("running")
        if not running:
            return dg.SkipReason("no experiment is running")
        now = datetime.now(UTC)
        last: dict[str, dict] = json.loads(context.cursor) if context.cursor else {}
        looks, requests = {}, []
        for experiment in running:
            name, before = experiment.name, last.get(experiment.name, {"at": 0.0, "traffic": NOTHING})
            current = traffic(experiment, catalog, now)
            due = now.timestamp() - before["at"] >= gap(now - experiment.started_at).total_seconds()
            due = due or current.count("-without-") > before["traffic"].count("-without-")
            if current != before["traffic"] and due:
                looks[name] = {"at": now.timestamp(), "traffic": current}
                requests.append(run_for(_look(experiment, current), 1, name, "ab_report"))
                continue
            looks[name] = before
            if before["traffic"] != NOTHING and not _reported(records, name, before["at"]):
                look = _look(experiment, before["traffic"])
                attempts = intent_runs.attempts(context.instance, [look])[look]
                step = next_step(attempts, ATTEMPTS, now, first_pause)
                if isinstance(step, Ask):
                    requests.append(run_for(look, step.number, name, "ab_report"))
        names = [request.partition_key for request in requests]
        known = set(context.instance.get_dynamic_partitions(experiments.name)) if names else set()
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=[experiments.build_add_request([name for name in names if name not in known])],
            cursor=json.dumps(looks),
        )

    return running_experiments


def _look(experiment: Experiment, of: str) -> str:
    """The name of one look, as an intent would have it."""
    return f"look:{experiment.name}:{experiment.started_at.timestamp()}:{of}"


def _reported(records: Records, name: str, since: float) -> bool:
    # One that cannot be read is made anew by the next look, and stops no other experiment's.
    record = records.readable(AbReportRecord, name)
    return record is not None and datetime.fromisoformat(record.figures["at"]).timestamp() >= since
