"""A record that cannot be read is the fault of one partition: sensors go on with all others, and say which it is."""

from datetime import UTC, datetime

import dagster as dg

from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.specs.dataset import DatasetSpec
from sensors import experiments as ab
from sensors import intents
from tests.sensors.test_sensors import catalog as catalog
from tests.sensors.test_sensors import evaluate, experiment, expose, want
from tests.sensors.test_sensors import instance as instance
from tests.sensors.test_sensors import records as records
from tests.serving.conftest import deployment_spec


def damage(records, record, partition: str) -> None:
    path = records.path(record, partition)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")


def test_an_experiment_whose_report_cannot_be_read_is_reported_anew_and_the_others_too(catalog, records, instance):
    catalog.want_endpoint(deployment_spec("kiosk", "base@1"))
    want(catalog)
    catalog.create_experiment(experiment())
    catalog.create_experiment(experiment(name="other", endpoint="kiosk"))
    expose(catalog, "r-1", datetime.now(UTC))
    sensor = ab.make(5)
    first = evaluate(sensor, instance, catalog=catalog, records=records)
    assert [request.partition_key for request in first.run_requests] == ["ab"]
    damage(records, AbReportRecord, "ab")
    again = evaluate(sensor, instance, first.cursor, catalog=catalog, records=records)
    assert isinstance(again, dg.SensorResult)
    assert [request.partition_key for request in again.run_requests] == ["ab"]


def test_an_intent_that_rests_on_a_damaged_record_is_held_and_the_others_are_taken_up(catalog, records, instance):
    spec = {
        "name": "desk",
        "version": "v1",
        "type": "sft_pair",
        "owner": "kim",
        "description": "d",
        "files": ["a.jsonl"],
    }
    catalog.register_dataset(DatasetSpec.model_validate(spec), "0" * 64)
    instance.add_dynamic_partitions(dataset_versions.name, ["desk@v1"])
    damage(records, SplitsRecord, "desk@v1")
    want(catalog)
    result = evaluate(intents.make(1), instance, catalog=catalog, records=records)
    assert isinstance(result, dg.SensorResult)
    assert [request.partition_key for request in result.run_requests] == ["desk"]
    # Alone it says what it waits for.
    catalog.conclude_deployment("desk", 1, state="live")
    held = evaluate(intents.make(1), instance, catalog=catalog, records=records)
    assert "ingest:desk@v1" in held.skip_reason.skip_message and "Invalid JSON" in held.skip_reason.skip_message
