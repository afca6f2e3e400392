"""A run that failed is on record, and a dataset version that could not be ingested is not what its name means."""

import dagster as dg
import pytest

from llmops_assets.partitions import dataset_versions
from resources.catalog import Catalog, pointers
from sensors.failures import failed_runs
from tests.resources.samples import dataset


@dg.asset(partitions_def=dataset_versions)
def splits() -> None:
    raise dg.Failure("line 3 of desk.jsonl is not JSON\nand more about it")


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    return Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")


def fail(catalog: Catalog, key: str) -> str:
    """Have the ingestion of a version fail in a real run; its id."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, [key])
        job = dg.define_asset_job("ingest", [splits])
        definitions = dg.Definitions([splits], jobs=[job])
        result = definitions.resolve_job_def("ingest").execute_in_process(
            partition_key=key, instance=instance, raise_on_error=False, asset_selection=[splits.key]
        )
        (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE]
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_runs",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=event,
            resources={"catalog": catalog},
        ).for_run_failure()
        failed_runs(context)
        return result.run_id


def test_a_version_that_failed_to_ingest_is_not_current(catalog):
    for version in ("v1", "v2"):
        catalog.register_dataset(dataset(version), version)
    catalog.intents.acknowledge("ingest", "desk@v1", 1, actor="splits")
    assert pointers.resolve(catalog, "desk") == "desk@v2"
    run = fail(catalog, "desk@v2")
    assert pointers.resolve(catalog, "desk") == pointers.resolve(catalog, "desk@current") == "desk@v1"
    assert [m.action for m in pointers.moves(catalog, "desk", "current")] == ["register", "failed"]
    (wanted,) = catalog.intents.open("ingest")
    assert wanted.reason.startswith(f"run {run} failed: ")
    assert wanted.reason.endswith("line 3 of desk.jsonl is not JSON")
    line = catalog.audit_log(1)[0]
    assert (line["action"], line["target"], line["detail"]["assets"]) == ("run.failed", "desk@v2", ["splits"])
    # It can be named, and asking for it again gives it another chance.
    assert pointers.resolve(catalog, "desk@v2") == "desk@v2"
    catalog.register_dataset(dataset("v2"), "v2")
    assert pointers.resolve(catalog, "desk") == "desk@v2"


def test_a_version_that_was_ingested_once_stays_current(catalog):
    for version in ("v1", "v2"):
        catalog.register_dataset(dataset(version), version)
        catalog.intents.acknowledge("ingest", f"desk@{version}", 1, actor="splits")
    catalog.register_dataset(dataset("v2"), "v2")
    fail(catalog, "desk@v2")
    assert pointers.resolve(catalog, "desk") == "desk@v2"


def test_where_no_version_was_ingested_the_newest_is_current(catalog):
    for version in ("v1", "v2"):
        catalog.register_dataset(dataset(version), version)
        fail(catalog, f"desk@{version}")
    assert pointers.resolve(catalog, "desk") == "desk@v2"
