"""Ingests what was registered: one run a dataset version, from its files to its splits."""

import dagster as dg

from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import SplitsRecord
from resources.catalog import Catalog, Dataset
from resources.records import Records
from sensors.runs import run_of

STAGE = ("dataset", "quality_report", "clean_dataset", "splits")
WRITTEN = "question_answers"


def make(interval: int) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="registered_datasets",
        target=dg.AssetSelection.assets(WRITTEN, *STAGE),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A registered dataset version becomes a partition, and a run ingests it, up to its splits.",
    )
    def registered_datasets(
        context: dg.SensorEvaluationContext,
        catalog: dg.ResourceParam[Catalog],
        records: dg.ResourceParam[Records],
    ) -> dg.SensorResult:
        known = set(context.instance.get_dynamic_partitions(dataset_versions.name))
        waiting = [
            entry
            for entry in catalog.datasets()
            if entry.status != "erased" and (entry.key not in known or records.find(SplitsRecord, entry.key) is None)
        ]
        return dg.SensorResult(
            # The key names the request: asking again for a version whose run failed starts another run.
            run_requests=[run_of(f"{e.key}:{e.requested_at.timestamp()}", e.key, *_assets(e)) for e in waiting],
            dynamic_partitions_requests=[
                dataset_versions.build_add_request([e.key for e in waiting if e.key not in known])
            ],
        )

    return registered_datasets


def _assets(entry: Dataset) -> tuple[str, ...]:
    """What is run for a version: rows that a model writes about documents come before they are ingested."""
    return (WRITTEN, *STAGE) if entry.spec.generation else STAGE
