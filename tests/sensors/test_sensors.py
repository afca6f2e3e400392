"""Each sensor turns what is in the catalog into partitions, runs and events, each once."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context

from llmops_assets.partitions import dataset_versions, endpoints, experiments, recipes
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import load_policy
from llmops_assets.training import assets as training_assets
from resources.catalog import Backend, Catalog, tables
from resources.model_server import ModelServers
from resources.records import Records
from sensors import datasets, deployments, servers, trainings
from sensors import experiments as ab

MERGED = MergedModelRecord(
    dataset="corpus@v1",
    recipe="base-01",
    training_key="k",
    path="/m",
    content_hash="h",
    family="llama",
    parameters=1,
    chat_template_hash=None,
    max_logit_difference=None,
    top1_agreement=None,
    differs_from_base=True,
    reloads=True,
)

UNUSED = ("policy", "store", "artifacts", "tracking", "trainer", "settings")


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


def register(catalog: Catalog, version: str = "v1") -> None:
    values = {"name": "desk", "version": version, "type": "sft_pair", "files": ["f"], "owner": "o", "description": "d"}
    catalog.register_dataset(DatasetSpec.model_validate(values), f"digest of {version}")


def splits(key: str) -> SplitsRecord:
    return SplitsRecord(
        dataset=key, type="sft_pair", manifests={}, rows={}, stratify_by=None, group_by=None, seed=0, data_hash="h"
    )


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


def test_a_registered_version_becomes_a_partition_and_a_run(catalog, records, instance):
    sensor = datasets.make(5)
    register(catalog)
    result = evaluate(sensor, instance, catalog=catalog, records=records)
    assert [request.partition_key for request in result.run_requests] == ["desk@v1"]
    assert list(result.dynamic_partitions_requests[0].partition_keys) == ["desk@v1"]


def test_a_version_that_is_split_is_left_alone_and_a_failed_one_runs_when_asked_again(catalog, records, instance):
    sensor = datasets.make(5)
    register(catalog, "v1")
    register(catalog, "v2")
    instance.add_dynamic_partitions(dataset_versions.name, ["desk@v1", "desk@v2"])
    records.save("desk@v1", splits("desk@v1"))
    (first,) = evaluate(sensor, instance, catalog=catalog, records=records).run_requests
    (same,) = evaluate(sensor, instance, catalog=catalog, records=records).run_requests
    assert (first.partition_key, first.run_key) == ("desk@v2", same.run_key)
    register(catalog, "v2")
    (again,) = evaluate(sensor, instance, catalog=catalog, records=records).run_requests
    assert again.run_key != first.run_key


def test_a_request_becomes_one_event_of_the_asset_graph(catalog, records, instance):
    sensor = trainings.make(5)
    register(catalog)
    catalog.add_recipe("tuned-01", {"base_model_ref": "hf:/models/m"})
    catalog.request_training("desk@v1", "tuned-01", "kim")
    result = evaluate(sensor, instance, catalog=catalog, records=records)
    (event,) = result.asset_events
    assert (event.asset_key.to_user_string(), event.partition) == ("training_request", "desk@v1|tuned-01")
    assert [request.partition_key for request in result.run_requests] == ["tuned-01"]
    added = {r.partitions_def_name: list(r.partition_keys) for r in result.dynamic_partitions_requests}
    assert added == {recipes.name: ["tuned-01"], dataset_versions.name: ["desk@v1"]}
    assert isinstance(evaluate(sensor, instance, catalog=catalog, records=records), dg.SkipReason)


def test_a_trial_of_a_study_is_run_and_nobody_requested_it(catalog, records, instance):
    register(catalog)
    catalog.add_recipe("desk-01", {"job_type": "SFT"})
    catalog.request_training("desk@v1", "desk-01", "study:desk-0a")
    first = evaluate(trainings.make(1), instance, catalog=catalog, records=records)
    assert first.asset_events == []
    assert [request.partition_key for request in first.run_requests] == ["desk-01"]
    # Through the whole tick, which refuses a run of a partition that is not there.
    defs = dg.Definitions(
        assets=dg.load_assets_from_modules([training_assets], include_specs=True),
        sensors=[trainings.trials(1)],
        resources={"catalog": catalog, "records": records, **dict.fromkeys(UNUSED)},
    )
    repository = defs.get_repository_def()

    def tick():
        resources = {"catalog": catalog, "records": records}
        context = dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources)
        with partition_loading_context(dynamic_partitions_store=instance):
            return repository.get_sensor_def("study_trials").evaluate_tick(context)

    assert tick().run_requests == []
    for request in first.dynamic_partitions_requests:
        instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    (run,) = tick().run_requests
    assert run.partition_key == "desk@v1|desk-01"
    assert {key.to_user_string() for key in run.asset_selection} == {"training_plan", "adapter"}
    assert tick().run_requests == [] and catalog.open_training_requests() == []


def test_a_request_waits_until_its_base_model_is_trained(catalog, records, instance):
    sensor = trainings.make(5)
    register(catalog)
    catalog.add_recipe("tuned-01", {"base_model_ref": "corpus@v1|base-01"})
    catalog.request_training("desk@v1", "tuned-01", "kim")
    held = evaluate(sensor, instance, catalog=catalog, records=records)
    assert "waits for corpus@v1|base-01" in held.skip_message
    records.save("corpus@v1|base-01", MERGED)
    assert len(evaluate(sensor, instance, catalog=catalog, records=records).asset_events) == 1


def test_a_wanted_endpoint_is_deployed_once_a_revision(catalog, instance):
    sensor = deployments.make(5)
    want(catalog)
    result = evaluate(sensor, instance, catalog=catalog)
    (first,) = result.run_requests
    assert list(result.dynamic_partitions_requests[0].partition_keys) == ["desk"]
    instance.add_dynamic_partitions(endpoints.name, ["desk"])
    catalog.update_endpoint("desk", state="live", observed_revision=1)
    assert evaluate(sensor, instance, catalog=catalog).run_requests == []
    want(catalog, "tuned@1")
    (second,) = evaluate(sensor, instance, catalog=catalog).run_requests
    assert second.run_key != first.run_key


def test_an_experiment_is_looked_at_only_when_there_is_something_new(catalog, instance):
    sensor = ab.analysis(5)
    catalog.create_experiment(experiment())
    empty = evaluate(sensor, instance, catalog=catalog)
    assert empty.run_requests == []
    expose(catalog, "r1", datetime.now(UTC))
    first = evaluate(sensor, instance, catalog=catalog, cursor=empty.cursor)
    assert [request.partition_key for request in first.run_requests] == ["ab"]
    assert list(first.dynamic_partitions_requests[0].partition_keys) == ["ab"]
    instance.add_dynamic_partitions(experiments.name, ["ab"])
    assert evaluate(sensor, instance, catalog=catalog, cursor=first.cursor).run_requests == []


def test_looks_become_rarer_as_a_test_ages_but_never_end():
    assert ab.gap(timedelta(minutes=1)) == ab.LEAST_GAP
    assert ab.gap(timedelta(days=10)) == timedelta(hours=2, minutes=24)


def test_the_end_of_a_test_is_something_new(catalog):
    catalog.create_experiment(experiment())
    running = catalog.experiment("ab")
    assert ab.seen(running, catalog, datetime.now(UTC)) == ab.NOTHING
    assert ab.seen(running, catalog, datetime.now(UTC) + timedelta(hours=2)) == f"{ab.NOTHING}-over"


@pytest.mark.parametrize(("decision", "model"), [("promote", "tuned@1"), ("rollback", "base@1"), ("invalid", "base@1")])
def test_a_decision_is_carried_out_once(catalog, instance, decision, model):
    sensor = ab.promotion(5)
    want(catalog)
    catalog.create_experiment(experiment())
    assert evaluate(sensor, instance, catalog=catalog).run_requests == []
    catalog.decide_experiment("ab", decision, "because", {})
    (request,) = evaluate(sensor, instance, catalog=catalog).run_requests
    assert request.partition_key == "desk"
    assert request.run_config == {"ops": {"deployment": {"config": {"model_ref": model}}}}
    assert evaluate(sensor, instance, catalog=catalog).run_requests == []


def test_a_model_server_that_nothing_routes_to_is_stopped_and_told(tmp_path, catalog, instance):
    policy = load_policy().serving
    model_servers = ModelServers(catalog, tmp_path / "servers", policy=policy)
    assert "as it should be" in evaluate(servers.model_servers, instance, servers=model_servers).skip_message
    want(catalog)
    catalog.add_backend(
        Backend(
            id="desk-0",
            endpoint="desk",
            model_ref="base@1",
            model_path=str(tmp_path / "gone"),
            engine="transformers",
            runtime={},
            url="",
            pid=None,
            pid_started=None,
            state="stopped",
            log_path=None,
            created_at=datetime.now(UTC),
        )
    )
    told = evaluate(servers.model_servers, instance, servers=model_servers).skip_message
    assert "stopped desk-0, which desk does not route to" in told
    assert catalog.backends("desk") == []
