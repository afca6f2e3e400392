"""Brings endpoints to what is wanted of them."""

import dagster as dg

from llmops_assets.partitions import endpoints
from resources.catalog import Catalog
from sensors.runs import run_of


def make(interval: int) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="wanted_endpoints",
        target=dg.AssetSelection.assets("deployment"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="An endpoint whose wanted revision was not acted on yet gets a deployment run.",
    )
    def wanted_endpoints(context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog]) -> dg.SensorResult:
        known = set(context.instance.get_dynamic_partitions(endpoints.name))
        pending = [e for e in catalog.endpoints() if e.state == "pending" and e.revision > e.observed_revision]
        return dg.SensorResult(
            run_requests=[
                run_of(f"{e.name}:{e.created_at.timestamp()}:{e.revision}", e.name, "deployment") for e in pending
            ],
            dynamic_partitions_requests=[endpoints.build_add_request([e.name for e in pending if e.name not in known])],
        )

    return wanted_endpoints
