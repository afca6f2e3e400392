"""Splits are compared with the suites once those have settled, one run a version, and again when that was cut off."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.events import AssetCheckEvaluationPlanned
from dagster._core.test_utils import create_run_for_test

from llmops_assets.datasets.suites import VERSION
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import ContaminationRecord, DatasetRecord, SplitsRecord
from llmops_assets.specs.dataset import DatasetSpec
from resources.catalog import Catalog
from resources.records import Records
from sensors import suites

VERSIONS = [f"desk@v{n}" for n in range(5)]
EVALUATION = dg.DagsterEventType.ASSET_CHECK_EVALUATION
PLANNED = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED


@dataclass
class House:
    catalog: Catalog
    records: Records
    instance: dg.DagsterInstance
    cursor: str | None = None
    settle: timedelta = timedelta(0)

    def tick(self) -> list[dg.RunRequest]:
        result = self.evaluate()
        self.cursor = result.cursor if isinstance(result, dg.SensorResult) else self.cursor
        return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []

    def reason(self) -> str:
        result = self.evaluate()
        return result.skip_message if isinstance(result, dg.SkipReason) else result.skip_reason.skip_message

    def evaluate(self) -> dg.SensorResult | dg.SkipReason:
        sensor = suites.make(1, settle=self.settle, first_pause=timedelta(0))
        resources = {"catalog": self.catalog, "records": self.records}
        return sensor(dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=resources))

    def register(self, key: str, kind: str = "sft_pair", ingested: bool = True) -> None:
        name, version = key.split("@")
        values = {"name": name, "version": version, "type": kind, "files": ["f"], "owner": "o", "description": "d"}
        self.catalog.register_dataset(DatasetSpec.model_validate(values), f"digest of {key}")
        if not ingested:
            return
        self.catalog.intents.acknowledge("ingest", key, 1, actor="splits")
        same = {"dataset": key, "type": kind, "manifest": key, "quarantine": None, "rows": 1, "quarantined": 0}
        self.records.save(key, DatasetRecord(**same, source_bytes=1, content_hash="h"))

    def split(self, key: str) -> None:
        self.instance.add_dynamic_partitions(dataset_versions.name, [key])
        manifests = {"train": f"{key}-train"}
        same = {"dataset": key, "type": "sft_pair", "manifests": manifests, "rows": {}, "data_hash": "h", "seed": 0}
        self.records.save(key, SplitsRecord(**same, stratify_by=None, group_by=None))
        self.instance.report_runless_asset_event(dg.AssetMaterialization("splits", partition=key))

    def start(self, request: dg.RunRequest) -> dg.DagsterRun:
        """A run as Dagster begins it: on record, with its check planned."""
        run = create_run_for_test(self.instance, status=dg.DagsterRunStatus.STARTED, tags=request.tags)
        subset = dataset_versions.subset_with_partition_keys([request.tags["dagster/partition"]])
        planned = AssetCheckEvaluationPlanned(
            asset_key=suites.CHECK.asset_key, check_name=suites.CHECK.name, partitions_subset=subset
        )
        self.report(run, PLANNED, planned)
        return run

    def finish(self, run: dg.DagsterRun) -> None:
        """The comparison is kept, the check passes, the run succeeds."""
        key = run.tags["dagster/partition"]
        current = suites.registered_suites(self.catalog, self.records)
        counts = {"judged": {}, "too_short": {}, "leaked": {}, "items": []}
        compared = ContaminationRecord(dataset=key, train=f"{key}-train", suites=current, version=VERSION, **counts)
        self.records.save(key, compared)
        where = dg.AssetRecordsFilter(dg.AssetKey("splits"), asset_partitions=[key])
        (last,) = self.instance.fetch_materializations(where, limit=1).records
        target = AssetCheckEvaluationTargetMaterializationData(
            storage_id=last.storage_id, run_id=last.run_id, timestamp=last.timestamp
        )
        evaluation = dg.AssetCheckEvaluation(
            asset_key=suites.CHECK.asset_key,
            check_name=suites.CHECK.name,
            passed=True,
            metadata={},
            partition=key,
            target_materialization_data=target,
        )
        self.report(run, EVALUATION, evaluation)
        self.instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job_name=run.job_name), run.run_id
        )

    def report(self, run: dg.DagsterRun, kind: dg.DagsterEventType, data: object) -> None:
        event = dg.DagsterEvent(kind.value, job_name=run.job_name, event_specific_data=data)
        self.instance.report_dagster_event(event, run.run_id)

    def compare(self) -> list[str]:
        """Tick, and carry out what is asked for; the versions that were compared."""
        requests = self.tick()
        for request in requests:
            self.finish(self.start(request))
        return [request.tags["dagster/partition"] for request in requests]


@pytest.fixture
def house(tmp_path) -> Iterator[House]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    with dg.DagsterInstance.ephemeral() as instance:
        found = House(catalog, Records(tmp_path / "records"), instance)
        for key in VERSIONS:
            found.register(key)
            found.split(key)
        yield found


def test_every_version_is_compared_once_and_then_left_alone(house):
    assert sorted(house.compare()) == VERSIONS
    assert house.compare() == [] and house.compare() == []
    assert "compared" in house.reason()


def test_seven_suites_that_come_one_after_another_make_one_run_a_version(house):
    house.compare()
    house.settle = timedelta(minutes=2)
    for number in range(7):
        # Registered, then ingested, with a look at each step.
        house.register(f"suite-{number}@v1", "eval_suite", ingested=False)
        assert house.compare() == []
        house.register(f"suite-{number}@v1", "eval_suite")
        house.catalog.intents.acknowledge("ingest", f"suite-{number}@v1", 2, actor="splits")
        assert house.compare() == []
    assert "once all are there" in house.reason()
    house.settle = timedelta(0)
    assert sorted(house.compare()) == VERSIONS
    assert house.compare() == []


def test_a_suite_that_is_being_ingested_is_waited_for(house):
    house.compare()
    house.register("suite@v1", "eval_suite", ingested=False)
    assert house.compare() == [] and house.compare() == []
    house.register("suite@v1", "eval_suite")
    house.catalog.intents.acknowledge("ingest", "suite@v1", 2, actor="splits")
    assert sorted(house.compare()) == VERSIONS


def test_no_comparison_is_in_flight_twice(house):
    first = house.tick()
    runs = [house.start(request) for request in first]
    assert len(runs) == 5 and house.tick() == []
    house.register("suite@v1", "eval_suite")
    # The suites are others by now, and yet a version is not compared while it is being compared.
    assert house.tick() == []
    for run in runs:
        house.instance.report_run_canceled(run)
    assert len(house.tick()) == 5


@pytest.mark.parametrize("how", ["canceled", "failed"])
def test_a_comparison_that_was_cut_off_is_asked_for_again_up_to_a_limit_and_then_says_so(house, how):
    for key in VERSIONS[1:]:
        house.records.path(SplitsRecord, key).unlink()
    for number in (1, 2, 3):
        (request,) = house.tick()
        assert request.run_key.endswith(f":{number}")
        run = house.start(request)
        assert "is being compared" in house.reason()
        getattr(house.instance, f"report_run_{how}")(run)
    assert house.tick() == []
    assert "desk@v0 is not compared with the suites, which holds its trainings: run" in house.reason()
    assert run.run_id in house.reason()
    # It stays on show while nothing is looked at anew.
    assert "tried 3 times" in house.reason()


def test_a_check_that_was_cut_off_is_asked_for_again_though_the_comparison_is_kept(house):
    house.compare()
    house.split("desk@v0")
    house.cursor = None
    (request,) = house.tick()
    run = house.start(request)
    house.instance.report_run_canceled(run)
    (again,) = house.tick()
    assert again.tags["dagster/partition"] == "desk@v0" and again.run_key[-1] == "2"
    house.finish(house.start(again))
    assert house.tick() == []


def test_nothing_new_costs_no_look_at_the_instance(house, monkeypatch):
    house.compare()
    house.compare()
    monkeypatch.setattr(suites, "_stale", None)
    assert house.tick() == []


def test_a_comparison_by_an_older_rule_is_made_again(house):
    house.compare()
    kept = house.records.find(ContaminationRecord, "desk@v0")
    house.records.save("desk@v0", kept.model_copy(update={"version": VERSION - 1}))
    house.cursor = None
    assert [request.tags["dagster/partition"] for request in house.tick()] == ["desk@v0"]
