"""Has the traffic of each endpoint looked at from time to time."""

import dagster as dg

from llmops_assets.partitions import endpoints
from resources.catalog import Catalog
from sensors.runs import run_of

EVERY = 500


def make(interval: int, every: int = EVERY) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most; it has an endpoint looked at every `every` requests."""

    @dg.sensor(
        name="endpoint_drift",
        target=dg.AssetSelection.assets("drift_report", "usage_report"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Every {every} requests to an endpoint, its traffic is compared with the training data and with "
        "the last good window.",
    )
    def endpoint_drift(
        context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog]
    ) -> dg.SensorResult | dg.SkipReason:
        due = {}
        for endpoint in catalog.endpoints():
            if batches := catalog.request_count(endpoint=endpoint.name) // every:
                due[f"{endpoint.name}:{endpoint.created_at.timestamp()}:{batches}"] = endpoint.name
        if not due or context.cursor == (state := "\n".join(sorted(due))):
            return dg.SkipReason(f"no endpoint had another {every} requests")
        known = set(context.instance.get_dynamic_partitions(endpoints.name))
        return dg.SensorResult(
            run_requests=[
                run_of(key, name, "drift_report", "usage_report") for key, name in due.items() if name in known
            ],
            cursor=state,
        )

    return endpoint_drift
