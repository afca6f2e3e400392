"""Notices that an alias of a prompt was moved in the registry, by whomever, and has its endpoints follow."""

import dagster as dg

from llmops_assets.operations.prompts import follow_aliases
from resources.catalog import Catalog
from resources.tracking import Tracking


def make(interval: int) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="prompt_aliases",
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Endpoints whose spec names a prompt by an alias use the version that it points to now: noted in "
        "the catalog with its audit line, where it is another one than before.",
    )
    def prompt_aliases(catalog: dg.ResourceParam[Catalog], tracking: dg.ResourceParam[Tracking]) -> dg.SkipReason:
        if not any(endpoint.spec.prompt is not None for endpoint in catalog.endpoints()):
            return dg.SkipReason("no endpoint names a prompt")
        moved = follow_aliases(catalog, tracking, "prompt_aliases")
        return dg.SkipReason("; ".join(f"{one.endpoint}: {one.prompt}" for one in moved) or "no alias was moved")

    return prompt_aliases
