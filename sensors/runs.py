"""Run requests that say which assets they are for, so that whoever follows a partition can tell its runs apart."""

from typing import Any

import dagster as dg


def run_of(key: str, partition: str, *assets: str, config: dict[str, Any] | None = None) -> dg.RunRequest:
    """A run of `assets` and their checks on one partition; a sensor starts only one run for each `key`."""
    return dg.RunRequest(
        run_key=key,
        partition_key=partition,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        run_config=config,
    )
