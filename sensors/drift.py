"""Looks at the traffic of each endpoint from time to time."""

import dagster as dg

from llmops_assets.partitions import endpoints
from resources.catalog import Catalog
from sensors.runs import run_of

EVERY = 500


def make(interval: int) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="endpoint_drift",
        target=dg.AssetSelection.assets("drift_report"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Every {EVERY} requests to an endpoint, its traffic is compared with the training data.",
    )
    def endpoint_drift(context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog]) -> dg.SensorResult:
        known = set(context.instance.get_dynamic_partitions(endpoints.name))
        requests = []
        for endpoint in catalog.endpoints():
            batches = catalog.request_count(endpoint=endpoint.name) // EVERY
            if endpoint.name in known and batches:
                key = f"{endpoint.name}:{endpoint.created_at.timestamp()}:{batches}"
                requests.append(run_of(key, endpoint.name, "drift_report"))
        return dg.SensorResult(run_requests=requests)

    return endpoint_drift
