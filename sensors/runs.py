"""Run requests that say which assets and which intent they are for."""

from collections.abc import Mapping

import dagster as dg

from resources.intent_runs import tags_of


def run_of(
    key: str, partition: str, *assets: str, tags: Mapping[str, str] | None = None, job: str | None = None
) -> dg.RunRequest:
    """A run of `assets` and their checks on one partition; a sensor starts only one run for each `key`.

    A sensor with jobs names the one that they belong to.
    """
    return dg.RunRequest(
        run_key=key,
        job_name=job,
        partition_key=partition,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        tags=dict(tags or {}),
    )


def run_for(intent: str, attempt: int, partition: str, *assets: str, job: str | None = None) -> dg.RunRequest:
    """A run of `assets` that an intent asks for, for the given time: asked for twice, it is started once."""
    return run_of(f"{intent}:{attempt}", partition, *assets, tags=tags_of(intent, attempt), job=job)
