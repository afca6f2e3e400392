"""Asks the contamination check again when a suite was registered, changed or archived after the splits were made."""

import hashlib
import json

import dagster as dg

from llmops_assets.datasets.suites import is_current, registered_suites
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import ContaminationRecord, SplitsRecord
from resources.catalog import Catalog
from resources.records import Records

PARTITION = "dagster/partition"
CHECK = dg.AssetCheckKey(dg.AssetKey("splits"), "no_contamination")


def make(interval: int) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="registered_suites",
        target=dg.AssetSelection.checks(CHECK),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When the evaluation suites change, splits that were made before are compared with them.",
    )
    def registered_suites_changed(
        context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog], records: dg.ResourceParam[Records]
    ) -> dg.SensorResult | dg.SkipReason:
        suites = registered_suites(catalog, records)
        now = hashlib.sha256(json.dumps(suites).encode()).hexdigest()[:16]
        if context.cursor == now:
            # Splits that were made since have been compared by their own check.
            return dg.SkipReason("the suites are as they were")
        known = set(context.instance.get_dynamic_partitions(dataset_versions.name))
        stale = [
            splits
            for entry in catalog.datasets()
            if entry.key in known and entry.spec.type != "eval_suite" and entry.status not in ("archived", "erased")
            if (splits := records.find(SplitsRecord, entry.key)) is not None
            if not is_current(records.find(ContaminationRecord, entry.key), splits, suites)
        ]
        return dg.SensorResult(
            run_requests=[
                # The key names what is compared: the same suites and rows are compared once, whatever comes of it.
                dg.RunRequest(
                    run_key=f"{splits.dataset}:{splits.data_hash}:{now}",
                    # As a tag, because Dagster looks for the partitions of a request in its assets, and has none here.
                    tags={PARTITION: splits.dataset},
                    asset_selection=[],
                    asset_check_keys=[CHECK],
                )
                for splits in stale
            ],
            cursor=now,
        )

    return registered_suites_changed
