"""Has each day of each endpoint's traffic compacted once it is over."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from llmops_assets.partitions import endpoints
from llmops_assets.records.traffic import TrafficRecord
from resources import intent_runs
from resources.attempts import FIRST_PAUSE, LIMITS, Ask, Held, next_step
from resources.catalog import Catalog
from resources.records import Records
from sensors.runs import run_for

# What was spooled at midnight is in the catalog by then.
_SETTLE = timedelta(minutes=10)
_MOST_DAYS = 30


def make(
    interval: int, first_pause: timedelta = FIRST_PAUSE, is_judged: Callable[[str], bool] = lambda _: False
) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most; it waits for `first_pause` before a second attempt.

    is_judged: of an endpoint, whether a sample of its days is judged once they are compacted.
    """

    @dg.sensor(
        name="daily_traffic",
        target=dg.AssetSelection.assets("traffic", "judged_traffic"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Every day that is over and had requests to an endpoint is compacted to Parquet; a run that was "
        "cancelled or failed is asked for again, a few times.",
    )
    def daily_traffic(
        context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog], records: dg.ResourceParam[Records]
    ) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        last = (now - _SETTLE).date() - timedelta(days=1)
        before = json.loads(context.cursor) if context.cursor and context.cursor.startswith("{") else {}
        if before.get("settled") == last.isoformat():
            # An instance costs more than all else here, so it is made only where there may be something to ask for.
            return dg.SkipReason("; ".join(before["held"]) or f"the days up to {last} are compacted")
        due = _due(catalog, records, last)
        known = set(context.instance.get_dynamic_partitions(endpoints.name)) if due else set()
        names = {f"traffic:{key}": key for key in due if key.keys_by_dimension["endpoint"] in known}
        attempts = intent_runs.attempts(context.instance, names)
        requests, underway, held = [], [], []
        for name, key in names.items():
            step = next_step(attempts[name], LIMITS["traffic"], now, first_pause)
            if isinstance(step, Ask):
                more = ("judged_traffic",) if is_judged(key.keys_by_dimension["endpoint"]) else ()
                requests.append(run_for(name, step.number, key, "traffic", *more))
            elif isinstance(step, Held):
                held.append(f"{key}: {step.reason}")
            else:
                underway.append(f"{key}: {step.reason}")
        is_settled = not requests and not underway
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None
            if requests
            else dg.SkipReason("; ".join([*held, *underway]) or f"the days up to {last} are compacted"),
            cursor=json.dumps({"settled": last.isoformat() if is_settled else None, "held": held}),
        )

    return daily_traffic


def _due(catalog: Catalog, records: Records, last: date) -> list[dg.MultiPartitionKey]:
    """The days up to `last` with requests, of which no record says that all of the day was compacted."""
    days = catalog.days_with_traffic(last - timedelta(days=_MOST_DAYS - 1), last)
    keys = [dg.MultiPartitionKey({"endpoint": name, "day": day}) for name, day in days]
    found = {key: records.readable(TrafficRecord, key) for key in keys}
    return [key for key, record in found.items() if record is None or not record.is_whole]
