"""Has each day of each endpoint's traffic compacted once it is over."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets.partitions import endpoints
from resources.catalog import Catalog
from sensors.runs import run_of

# What was spooled at midnight is in the catalog by then.
_SETTLE = timedelta(minutes=10)
_MOST_DAYS = 30


def make(interval: int) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="daily_traffic",
        target=dg.AssetSelection.assets("traffic"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Every day that is over and had requests to an endpoint is compacted to Parquet.",
    )
    def daily_traffic(
        context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog]
    ) -> dg.SensorResult | dg.SkipReason:
        last = (datetime.now(UTC) - _SETTLE).date() - timedelta(days=1)
        if context.cursor == last.isoformat():
            return dg.SkipReason(f"the days up to {last} were asked for")
        due = catalog.days_with_traffic(last - timedelta(days=_MOST_DAYS - 1), last)
        known = set(context.instance.get_dynamic_partitions(endpoints.name)) if due else set()
        # A day is asked for once, whatever the cursor says.
        requests = [
            run_of(f"traffic:{name}:{day}", dg.MultiPartitionKey({"endpoint": name, "day": day}), "traffic")
            for name, day in due
            if name in known
        ]
        return dg.SensorResult(run_requests=requests, cursor=last.isoformat())

    return daily_traffic
