"""The sensors that react to traffic and to what runs: each asks once, and again for what was cut off."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from llmops_assets.partitions import endpoints, experiments
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from resources.catalog import Catalog, tables
from resources.records import Records
from sensors import drift
from sensors import experiments as ab


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    return Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")


@pytest.fixture
def records(tmp_path) -> Records:
    return Records(tmp_path / "records")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def evaluate(sensor, instance, cursor=None, **resources) -> dg.SensorResult | dg.SkipReason:
    wanted = {name: resources[name] for name in sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=wanted)
    return sensor(context)


def want(catalog: Catalog, model: str = "base@1") -> None:
    values = {"model_ref": model, "model_family": "llama", "job_type": "SFT", "serve_target": "GENERATION"}
    more = {"environment": "production", "endpoint": "desk", "resources": {"gpus": 0}}
    catalog.want_endpoint(DeploymentSpec.model_validate(values | more))


def experiment(**changes) -> ExperimentSpec:
    values = {"name": "ab", "endpoint": "desk", "control": "base@1", "treatment": "tuned@1", "duration_hours": 1}
    return ExperimentSpec.model_validate({**values, "rating_window_hours": 0.01, **changes})


def expose(catalog: Catalog, request_id: str, at: datetime) -> None:
    row = {c.name: None for c in tables.exposures.columns}
    row |= {"request_id": request_id, "at": at, "endpoint": "desk", "experiment": "ab", "phase": 1, "variant": 0}
    row |= {"backend": "b", "model_ref": "base@1", "user": request_id, "status": 200, "latency_ms": 1.0}
    catalog.add_exposures([row])


def test_an_experiment_is_looked_at_only_when_there_is_something_new(catalog, records, instance):
    sensor = ab.make(5)
    catalog.create_experiment(experiment())
    empty = evaluate(sensor, instance, catalog=catalog, records=records)
    assert empty.run_requests == []
    expose(catalog, "r1", datetime.now(UTC))
    first = evaluate(sensor, instance, catalog=catalog, records=records, cursor=empty.cursor)
    assert [request.partition_key for request in first.run_requests] == ["ab"]
    assert list(first.dynamic_partitions_requests[0].partition_keys) == ["ab"]
    instance.add_dynamic_partitions(experiments.name, ["ab"])
    create_run_for_test(instance, tags=first.run_requests[0].tags)
    assert evaluate(sensor, instance, catalog=catalog, records=records, cursor=first.cursor).run_requests == []


def test_a_dropped_treatment_is_looked_at_at_once_and_once(catalog, records, instance):
    sensor = ab.make(5)
    catalog.create_experiment(experiment())
    expose(catalog, "r1", datetime.now(UTC))
    first = evaluate(sensor, instance, catalog=catalog, records=records)
    instance.add_dynamic_partitions(experiments.name, ["ab"])
    create_run_for_test(instance, tags=first.run_requests[0].tags)
    # New traffic alone waits for the next look; a dropped treatment does not.
    expose(catalog, "r2", datetime.now(UTC))
    waits = evaluate(sensor, instance, catalog=catalog, records=records, cursor=first.cursor)
    assert waits.run_requests == []
    catalog.dropped_arms.note(
        "ab", "tuned@1", endpoint="desk", phase=1, reason="it failed", figures={}, actor="gateway"
    )
    (request,) = (
        found := evaluate(sensor, instance, catalog=catalog, records=records, cursor=waits.cursor)
    ).run_requests
    assert request.run_key.endswith("-without-tuned@1:1")
    create_run_for_test(instance, tags=request.tags)
    assert evaluate(sensor, instance, catalog=catalog, records=records, cursor=found.cursor).run_requests == []


def test_looks_become_rarer_as_a_test_ages_but_never_end():
    assert ab.gap(timedelta(minutes=1)) == ab.LEAST_GAP
    assert ab.gap(timedelta(days=10)) == timedelta(hours=2, minutes=24)


def test_the_end_of_a_test_is_something_new(catalog):
    catalog.create_experiment(experiment())
    running = catalog.experiment("ab")
    assert ab.traffic(running, catalog, datetime.now(UTC)) == ab.NOTHING
    assert ab.traffic(running, catalog, datetime.now(UTC) + timedelta(hours=2)) == f"{ab.NOTHING}-over"


def test_a_look_that_was_cut_off_is_asked_for_again_and_one_that_was_reported_is_not(catalog, records, instance):
    sensor = ab.make(5, first_pause=timedelta(0))
    catalog.create_experiment(experiment())
    expose(catalog, "r1", datetime.now(UTC))
    first = evaluate(sensor, instance, catalog=catalog, records=records)
    (request,) = first.run_requests
    instance.add_dynamic_partitions(experiments.name, ["ab"])
    run = create_run_for_test(instance, tags=request.tags)
    going_on = evaluate(sensor, instance, catalog=catalog, records=records, cursor=first.cursor)
    assert going_on.run_requests == []
    instance.report_run_canceled(run)
    (again,) = evaluate(sensor, instance, catalog=catalog, records=records, cursor=going_on.cursor).run_requests
    assert (again.run_key.rpartition(":")[0], again.run_key[-1]) == (request.run_key.rpartition(":")[0], "2")
    record = {"experiment": "ab", "decision": "continue", "reason": "", "users": {}, "exposures": {}}
    at = datetime.now(UTC).isoformat()
    records.save("ab", AbReportRecord(**record, figures={"at": at}, decided_at=None))
    assert evaluate(sensor, instance, catalog=catalog, records=records, cursor=going_on.cursor).run_requests == []


def test_drift_is_looked_at_every_so_many_requests_and_between_them_costs_no_look_at_the_instance(catalog, instance):
    sensor = drift.make(5)
    want(catalog)
    instance.add_dynamic_partitions(endpoints.name, ["desk"])
    assert isinstance(evaluate(sensor, instance, catalog=catalog), dg.SkipReason)
    for number in range(drift.EVERY):
        expose(catalog, f"r{number}", datetime.now(UTC))
    first = evaluate(sensor, instance, catalog=catalog)
    assert [request.partition_key for request in first.run_requests] == ["desk"]
    assert isinstance(evaluate(sensor, instance, catalog=catalog, cursor=first.cursor), dg.SkipReason)
