"""Reads how the blocking checks of a dataset version's splits stand, which hold up the trainings on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus, AssetCheckPartitionInfo

from llmops_assets.datasets import checks

SPLITS = dg.AssetKey("splits")


@dataclass(frozen=True)
class Evaluated:
    """How a check of a partition stands: on which materialisation it would be, and whether it was evaluated on that."""

    materialization: int
    is_current: bool


@cache
def gates() -> tuple[dg.AssetCheckKey, ...]:
    """The blocking checks of `splits`."""
    found = [value for value in vars(checks).values() if isinstance(value, dg.AssetChecksDefinition)]
    specs = [spec for definition in found for spec in definition.check_specs]
    return tuple(spec.key for spec in specs if spec.asset_key == SPLITS and spec.blocking)


def evaluated(instance: dg.DagsterInstance, check: dg.AssetCheckKey, partitions: Sequence[str]) -> dict[str, Evaluated]:
    """How a check stands on those of the partitions whose asset is materialised."""
    info = _info(instance, [check], partitions)
    found = {}
    for partition in partitions:
        one = info.get((check, partition))
        last = one.latest_materialization_storage_id if one is not None else None
        if last is None:
            wanted = dg.AssetRecordsFilter(check.asset_key, asset_partitions=[partition])
            records = instance.fetch_materializations(wanted, limit=1).records
            last = records[0].storage_id if records else None
        if last is not None:
            found[partition] = Evaluated(last, one is not None and _has_verdict(one) and one.is_current)
    return found


def unmet_gates(instance: dg.DagsterInstance, dataset: str) -> list[str]:
    """The gates of a version that did not pass on its splits as they are, each with the reason."""
    info = _info(instance, gates(), [dataset])
    return [reason for key in gates() if (reason := _unmet(instance, key, info.get((key, dataset)))) is not None]


def _unmet(instance: dg.DagsterInstance, key: dg.AssetCheckKey, one: AssetCheckPartitionInfo | None) -> str | None:
    if one is None:
        return f"{key.name} was not evaluated"
    if not _has_verdict(one):
        run = instance.get_run_by_id(one.latest_planned_run_id)
        if run is None or run.is_finished:
            return f"run {one.latest_planned_run_id} ended before {key.name} was evaluated"
        return f"{key.name} is being evaluated by run {one.latest_planned_run_id}"
    if not one.is_current:
        return f"{key.name} was evaluated on earlier splits"
    if one.latest_execution_status == AssetCheckExecutionRecordStatus.FAILED:
        return f"{key.name} failed in run {one.latest_planned_run_id}"
    return None


def _has_verdict(one: AssetCheckPartitionInfo) -> bool:
    return one.latest_execution_status != AssetCheckExecutionRecordStatus.PLANNED


def _info(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey], partitions: Sequence[str]
) -> dict[tuple[dg.AssetCheckKey, str | None], AssetCheckPartitionInfo]:
    if not partitions:
        return {}
    found = instance.event_log_storage.get_asset_check_partition_info(list(keys), partition_keys=list(partitions))
    return {(one.check_key, one.partition_key): one for one in found}
