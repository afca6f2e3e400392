"""The protocol: what is wanted is done and acknowledged; a kill at any line loses nothing and doubles nothing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from llmops_assets.definitions import defs
from llmops_assets.partitions import dataset_versions, endpoints, recipes, trainings
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from resources.attempts import LIMITS
from resources.catalog import Catalog
from resources.records import Records
from sensors import intents
from tests.sensors.daemon import Daemon
from tests.sensors.killing import killed_at

SENSOR = ("sensors/intents.py", "sensors/runs.py", "resources/attempts.py", "resources/intent_runs.py")
COMMIT = ("tests/sensors/daemon.py",)
ACKNOWLEDGING = ("resources/catalog/intents.py", "resources/catalog/endpoints.py")
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


@dataclass
class Work:
    """What the assets of a test do in place of real work: count it, or fail as they are told."""

    done: list[str] = field(default_factory=list)
    failure: Callable[[], BaseException] | None = None

    def do(self, asset: str, partition: str) -> None:
        if self.failure is not None and asset in LAST.values():
            raise self.failure()
        self.done.append(f"{asset} {partition}")


def definitions(work: Work) -> dg.Definitions:
    """The graph of what intents ask for: its keys and partitions, acknowledging as it does, with nothing to compute."""

    def asset(name: str, partitions: dg.PartitionsDefinition, *deps: str) -> dg.AssetsDefinition:
        @dg.asset(name=name, partitions_def=partitions, deps=deps)
        def simple(context: dg.AssetExecutionContext) -> None:
            work.do(name, context.partition_key)

        return simple

    def last(name: str, partitions: dg.PartitionsDefinition, *kinds: str, deps: tuple[str, ...]) -> dg.AssetsDefinition:
        @dg.asset(name=name, partitions_def=partitions, deps=deps)
        def acknowledging(
            context: dg.AssetExecutionContext, catalog: dg.ResourceParam[Catalog]
        ) -> Iterator[dg.MaterializeResult]:
            wanted = [catalog.intents.newest(kind, str(context.partition_key)) for kind in kinds]
            work.do(name, context.partition_key)
            yield from catalog.intents.acknowledge_after(dg.MaterializeResult(), wanted, actor=name)

        return acknowledging

    @dg.asset(partitions_def=endpoints)
    def deployment(
        context: dg.AssetExecutionContext, catalog: dg.ResourceParam[Catalog]
    ) -> Iterator[dg.MaterializeResult]:
        wanted = catalog.endpoint(context.partition_key)
        work.do("deployment", context.partition_key)
        yield dg.MaterializeResult()
        catalog.conclude_deployment(wanted.name, wanted.revision, state="live")

    versions = dataset_versions
    return dg.Definitions(
        assets=[
            asset("question_answers", versions),
            asset("dataset", versions),
            asset("quality_report", versions, "dataset"),
            asset("clean_dataset", versions, "quality_report"),
            last("splits", versions, "ingest", deps=("clean_dataset",)),
            asset("recipe", recipes),
            dg.AssetSpec("training_request", partitions_def=trainings),
            asset("training_plan", trainings),
            last("adapter", trainings, "train", "trial", deps=("training_plan",)),
            deployment,
        ],
        sensors=[intents.make(1, first_pause=timedelta(0))],
    )


@dataclass
class House:
    catalog: Catalog
    records: Records
    work: Work
    daemon: Daemon
    numbers: Iterator[int] = field(default_factory=count)
    handled: int = 0

    @property
    def instance(self) -> dg.DagsterInstance:
        return self.daemon.instance

    def simulate(self, partition: str, *assets: dg.AssetKey, tags: Mapping[str, str] | None = None) -> None:
        """A run that only leaves what it leaves on record: itself, what it did, and what it acknowledged."""
        more = {"dagster/partition": partition, **(tags or {})}
        run = create_run_for_test(self.instance, "run", tags=more, asset_selection=frozenset(assets))
        names = {key.to_user_string() for key in assets}
        for kind, asset in LAST.items():
            if asset in names and (wanted := self.catalog.intents.newest(kind, partition)) is not None:
                self.catalog.intents.acknowledge(kind, partition, wanted.revision, actor=asset)
        self.work.done += [f"{name} {partition}" for name in names]
        success = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, job_name=run.job_name)
        self.instance.report_dagster_event(success, run.run_id)

    def last_alone(self, partition: str, *assets: dg.AssetKey, tags: Mapping[str, str] | None = None) -> None:
        """A run of the asset that acknowledges, without those before it."""
        self.daemon.materialize(partition, assets[-1], tags=tags)

    def automate(self, run: Callable[..., Any] | None = None) -> None:
        """What automation does about requested cells: one run for what was requested since it last looked."""
        found = self.instance.fetch_materializations(dg.AssetKey("training_request"), limit=100).records
        new = {record.partition_key for record in found if record.storage_id > self.handled}
        self.handled = max([self.handled, *(record.storage_id for record in found)])
        for cell in new:
            (run or self.daemon.materialize)(cell, dg.AssetKey("training_plan"), dg.AssetKey("adapter"))

    def settle(self, run: Callable[..., Any] | None = None) -> None:
        """Let the daemon and the runs go on until nothing is wanted any more."""
        for _ in range(6):
            self.daemon.tick()
            self.daemon.execute(run)
            self.automate(run)
            self.daemon.bury()
            if not self.catalog.intents.open():
                return
        raise AssertionError(f"still open: {self.daemon.reason()}")


@pytest.fixture
def house(tmp_path) -> Iterator[House]:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    records, work = Records(tmp_path / "records"), Work()
    defs = dg.Definitions.merge(definitions(work), dg.Definitions(resources={"catalog": catalog, "records": records}))
    with dg.DagsterInstance.ephemeral() as instance:
        yield House(catalog, records, work, Daemon(instance, defs, "intents", catalog=catalog, records=records))


def register(house: House, version: str = "v1", **changes: Any) -> str:
    values = {"name": "desk", "version": version, "type": "sft_pair", "files": ["f"], "owner": "o", "description": "d"}
    house.catalog.register_dataset(DatasetSpec.model_validate(values | changes), f"digest of {version}")
    return f"desk@{version}"


def want_dataset(house: House) -> tuple[str, str]:
    return "ingest", register(house, f"v{next(house.numbers)}")


def want_training(house: House, actor: str = "kim") -> tuple[str, str]:
    number = next(house.numbers)
    key = register(house, f"t{number}")
    house.catalog.intents.withdraw("ingest", key, "test")
    house.catalog.add_recipe(f"tuned-{number}", {"job_type": "SFT"})
    house.catalog.request_training(key, f"tuned-{number}", actor)
    return "trial" if actor.startswith("study:") else "train", f"{key}|tuned-{number}"


def want_trial(house: House) -> tuple[str, str]:
    return want_training(house, "study:desk-0a")


def want_endpoint(house: House) -> tuple[str, str]:
    name = f"desk-{next(house.numbers)}"
    values = {"model_ref": "base@1", "model_family": "llama", "job_type": "SFT", "serve_target": "GENERATION"}
    more = {"environment": "production", "endpoint": name, "resources": {"gpus": 0}}
    house.catalog.want_endpoint(DeploymentSpec.model_validate(values | more))
    return "deploy", name


WANTS = [want_dataset, want_training, want_trial, want_endpoint]
LAST = {"ingest": "splits", "train": "adapter", "trial": "adapter", "deploy": "deployment"}


def closings(house: House, kind: str, key: str) -> list[str]:
    return [
        a["action"] for a in house.catalog.audit_of(key) if a["action"].startswith(f"{kind}.") and a["actor"] != "cli"
    ]


def assert_done_once(house: House, kind: str, key: str, *, times: int = 1) -> None:
    intent = house.catalog.intents.newest(kind, key)
    assert (intent.outcome, closings(house, kind, key)) == ("done", [f"{kind}.done"])
    assert house.work.done.count(f"{LAST[kind]} {key}") == times


@pytest.mark.parametrize("want", WANTS)
def test_what_is_wanted_is_done_once_and_acknowledged(house, want):
    kind, key = want(house)
    house.settle()
    assert_done_once(house, kind, key)
    assert house.daemon.tick() == [] and house.daemon.reason() == "nothing is wanted"


@pytest.mark.parametrize("want", WANTS)
def test_a_tick_that_is_killed_at_any_line_loses_nothing_and_doubles_nothing(house, want):
    for line in count(1):
        kind, key = want(house)
        with killed_at(line, *SENSOR, *COMMIT) as kill:
            house.daemon.tick()
        house.settle(house.simulate)
        assert_done_once(house, kind, key)
        if not kill.hit:
            break
    assert line > 90


# A trial is run once: it is its study that asks for it again.
@pytest.mark.parametrize("want", [want_dataset, want_training, want_endpoint])
def test_a_run_that_is_killed_at_any_line_of_acknowledging_is_asked_for_again(house, want):
    for line in count(1):
        kind, key = want(house)
        with killed_at(line, *ACKNOWLEDGING) as kill:
            house.settle(house.last_alone)
        house.daemon.bury()
        if house.catalog.intents.newest(kind, key).is_open:
            house.settle(house.last_alone)
        times = house.work.done.count(f"{LAST[kind]} {key}")
        assert_done_once(house, kind, key, times=times)
        assert times in (1, 2)
        if not kill.hit:
            break
    assert line > 10


@pytest.mark.parametrize("want", [want_dataset, want_training, want_endpoint])
def test_a_run_that_died_is_asked_for_again_up_to_a_limit_and_then_held_with_the_reason(house, want):
    house.work.failure = lambda: OSError("no space left on device")
    kind, key = want(house)
    for _ in range(LIMITS[kind] + 3):
        house.daemon.tick()
        house.daemon.execute()
        house.automate()
    runs = [run for run in house.instance.get_runs() if run.tags.get("dagster/partition") == key]
    assert len(runs) == LIMITS[kind] and house.daemon.tick() == []
    reason = house.daemon.reason()
    assert f"{kind}:{key}:1: run {runs[0].run_id} failed: " in reason and "no space left on device" in reason
    assert f"it was tried {LIMITS[kind]} times" in reason
    # Wanted anew, it is tried anew.
    house.work.failure = None
    _want_again(house, kind, key)
    house.settle()
    assert_done_once(house, kind, key)


def test_a_trial_is_tried_once_as_its_study_learns_from_that(house):
    house.work.failure = lambda: OSError("no space left on device")
    _, key = want_trial(house)
    for _ in range(4):
        house.daemon.tick()
        house.daemon.execute()
    assert sum(run.tags.get("dagster/partition") == key for run in house.instance.get_runs()) == 1
    assert "tried once" in house.daemon.reason()


@pytest.mark.parametrize("want", [want_dataset, want_training, want_endpoint])
def test_a_refusal_is_not_tried_again_and_is_the_reason_that_is_shown(house, want):
    house.work.failure = lambda: dg.Failure("no such family", allow_retries=False)
    _, key = want(house)
    for _ in range(3):
        house.daemon.tick()
        house.daemon.execute()
        house.automate()
    assert sum(run.tags.get("dagster/partition") == key for run in house.instance.get_runs()) == 1
    assert house.daemon.reason().endswith(": no such family")


@pytest.mark.parametrize("want", [want_dataset, want_training, want_endpoint])
def test_a_cancelled_run_is_asked_for_again_unless_the_wish_is_withdrawn(house, want):
    kind, key = want(house)
    house.work.failure = KeyboardInterrupt
    house.daemon.tick()
    house.daemon.execute()
    house.automate()
    (run,) = [run for run in house.instance.get_runs() if run.tags.get("dagster/partition") == key]
    house.instance.report_run_canceled(run)
    house.work.failure = None
    house.settle()
    assert_done_once(house, kind, key)
    kind, other = want(house)
    house.catalog.intents.withdraw(kind, other, "kim")
    assert house.daemon.tick() == [] and f"{LAST[kind]} {other}" not in house.work.done


def test_dagster_accepts_all_that_is_asked_for_in_one_tick(house, tmp_path):
    """As its code server has it: partitions that the same tick adds count, and each run belongs to one of the jobs."""
    wanted = [want(house) for want in WANTS]
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        repository = defs.get_repository_def()
        sensor = repository.get_sensor_def("intents")

        def tick() -> Any:
            context = dg.SensorEvaluationContext(
                instance_ref=instance.get_ref(),
                last_tick_completion_time=None,
                last_run_key=None,
                cursor=None,
                repository_name=repository.name,
                repository_def=repository,
                resources={"catalog": house.catalog, "records": house.records},
            )
            with context:
                return sensor.evaluate_tick(context)

        first = tick()
        jobs = [(request.job_name, request.tags["dagster/partition"]) for request in first.run_requests]
        recipes_of = [("make_recipe", key.split("|")[1]) for kind, key in wanted if kind in ("train", "trial")]
        assert jobs == [("ingest", wanted[0][1]), *recipes_of, ("deploy", wanted[3][1])]
        assert [event.partition for event in first.asset_events] == [wanted[1][1]]
        for request in first.dynamic_partitions_requests:
            instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        assert ("trial", wanted[2][1]) in [(r.job_name, r.tags["dagster/partition"]) for r in tick().run_requests]


def test_what_is_held_costs_no_look_at_the_instance(house, monkeypatch):
    house.work.failure = lambda: dg.Failure("no such family", allow_retries=False)
    want_dataset(house)
    house.daemon.tick()
    house.daemon.execute()
    house.daemon.tick()
    # Whoever looks at the instance is a `Tick`.
    monkeypatch.setattr(intents, "Tick", None)
    assert "no such family" in house.daemon.reason()


def test_nothing_wanted_costs_no_look_at_the_instance(house, monkeypatch):
    monkeypatch.setattr(intents, "Tick", None)
    assert house.daemon.reason() == "nothing is wanted"


def test_a_version_that_was_ingested_is_not_ingested_again_when_it_is_registered_again(house):
    kind, key = want_dataset(house)
    house.settle()
    house.records.save(key, splits(key))
    _want_again(house, kind, key)
    assert house.daemon.tick() == []
    assert house.catalog.intents.newest(kind, key).outcome == "done" and house.work.done.count(f"splits {key}") == 1


def test_a_training_waits_until_its_base_model_is_trained(house):
    key = register(house)
    house.settle()
    house.catalog.add_recipe("tuned-01", {"base_model_ref": "corpus@v1|base-01"})
    house.catalog.request_training(key, "tuned-01", "kim")
    assert house.daemon.tick() == []
    assert "waits for corpus@v1|base-01" in house.daemon.reason()
    house.records.save("corpus@v1|base-01", MERGED)
    house.settle()
    assert_done_once(house, "train", f"{key}|tuned-01")


def test_a_training_that_waits_says_for_what(house):
    key = register(house)
    house.work.failure = lambda: dg.Failure("no row could be read", allow_retries=False)
    house.catalog.add_recipe("tuned-01", {"job_type": "SFT"})
    house.daemon.tick()
    house.daemon.execute()
    house.work.failure = None
    house.catalog.request_training(key, "tuned-01", "kim")
    house.daemon.tick()
    house.daemon.execute()
    assert "waits for the splits of desk@v1: run" in (reason := house.daemon.reason())
    assert reason.count("no row could be read") == 2
    house.records.save(key, splits(key))
    assert "no_contamination was not evaluated" in house.daemon.reason()


def test_one_that_is_asked_for_again_while_it_is_trained_is_requested_when_that_is_over(house):
    kind, key = want_training(house)
    house.daemon.tick()
    house.daemon.execute()
    dataset, recipe = key.split("|")
    run = create_run_for_test(
        house.instance,
        job_name="training",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": key},
        asset_selection=frozenset({dg.AssetKey("adapter")}),
    )
    house.catalog.request_training(dataset, recipe, "lee")
    house.daemon.tick()
    assert f"{run.run_id}, which was asked for before, is under way" in house.daemon.reason()
    house.instance.report_run_failed(run)
    house.settle()
    assert house.catalog.intents.newest(kind, key).revision == 2
    assert_done_once(house, kind, key)


def splits(key: str) -> SplitsRecord:
    return SplitsRecord(
        dataset=key, type="sft_pair", manifests={}, rows={}, stratify_by=None, group_by=None, seed=0, data_hash="h"
    )


def _want_again(house: House, kind: str, key: str) -> None:
    if kind == "ingest":
        register(house, key.split("@")[1])
    elif kind == "deploy":
        house.catalog.want_endpoint(house.catalog.endpoint(key).spec)
    else:
        house.catalog.request_training(*key.split("|"), "kim")
