"""Kills in a running platform: its runs, trainers, daemon and supervisor, and no training is lost or done twice."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import psutil
import pytest
import yaml

from llmops_assets.local.stack import prepare_home
from llmops_assets.partitions import dataset_versions, recipes
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.names import STUDY_ACTOR, training_key
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders, progress, search
from llmops_assets.training.base import inspect_base
from llmops_assets.wiring import Wiring
from resources.gpus import discover, lease
from tests.training.conftest import SIZES, chat_frame, conversations, run_here, sft_spec, write_splits

STEPS, SAVE = 300, 30
VALIDATE = 15
"""Steps of an epoch of these rows, at whose end trainings are validated that say nothing else."""
LEAST = 1e-7
"""A learning rate that changes nothing."""
DEADLINE = 400.0
GPU = {"LLMOPS_SIMULATED_GPUS": "1"}

T = TypeVar("T")

pytestmark = pytest.mark.timeout(2400)


def until(condition: Callable[[], T], what: str) -> T:
    """What `condition` gives once it is not false."""
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE:.0f} s"
        time.sleep(0.2)
    return found


@dataclass
class Training:
    """A cell of the running platform, as the disk and the processes show it."""

    platform: "Platform"
    cell: str

    @property
    def folder(self) -> Path | None:
        plan = self.platform.wiring.records.find(PlanRecord, self.cell)
        return Path(plan.model_dir) if plan else None

    def trainer(self) -> psutil.Process | None:
        """The process that trains it."""
        job = self.folder and str(self.folder / "work" / "train.json")
        found = self.platform.processes().items() if job else ()
        return next((process for process, command in found if command[-2:] == ["images.train", job]), None)

    def step(self) -> int:
        """The step of its last whole checkpoint."""
        return (self.folder and folders.last_checkpoint(self.folder / "checkpoints")[0]) or 0

    def trains_on(self, step: int = 0) -> psutil.Process | None:
        """Its trainer, once it has a checkpoint after `step`."""
        return self.trainer() if self.step() > step else None

    def runs(self) -> list[dg.DagsterRun]:
        """Its runs, the oldest first."""
        filters = dg.RunsFilter(tags={"dagster/partition": self.cell})
        return [r.dagster_run for r in self.platform.instance.get_run_records(filters, ascending=True)]

    def failed(self) -> None:
        """Nothing fails here by itself: raise what was said."""
        said = self.folder and progress.failure(self.folder)
        assert not said, said

    def record(self) -> AdapterRecord | None:
        over = self.runs() and all(run.is_finished for run in self.runs())
        return self.platform.wiring.records.find(AdapterRecord, self.cell) if over else None

    def starts(self) -> list[int]:
        """The steps that its trainers began from, by their own log."""
        log = (self.folder / "work" / "train.log").read_text()
        return [int(step) for step in re.findall(r"training \d+ steps from step (\d+)", log)]


@dataclass
class Platform:
    """`llmops up` on a home whose dataset is split already."""

    wiring: Wiring
    instance: dg.DagsterInstance
    environment: dict[str, str]
    base: Path
    up: subprocess.Popen | None = None

    @property
    def root(self) -> Path:
        return self.wiring.settings.root

    def start(self) -> None:
        with open(self.root / "up.log", "ab") as log:
            command = [sys.executable, "-m", "llmops_assets.cli", "up", "--no-pages"]
            self.up = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        state = self.root / "up.json"

        def ready() -> bool:
            assert self.up.poll() is None, (self.root / "up.log").read_text()[-4000:]
            return state.exists() and json.loads(state.read_text() or "{}").get("pid") == self.up.pid

        until(ready, "the platform's start")

    def processes(self) -> dict[psutil.Process, list[str]]:
        """Every process of this home, without this one, and its command."""
        found = {}
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
                # A trainer is told nothing of the home.
                ours = str(self.root) in " ".join(command) or process.environ().get("LLMOPS_HOME") == str(self.root)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            if ours:
                found[process] = command
        return found

    def component(self, module: str) -> psutil.Process | None:
        """The process that runs a module for `up`."""
        children = psutil.Process(self.up.pid).children()
        return next((p for p, command in self.processes().items() if p in children and module in command), None)

    def ask(self, **hyperparams: Any) -> Training:
        """Ask for a training as a study does: it is planned and trained, and goes no further."""
        few = {"max_steps": STEPS, "num_epochs": STEPS, "save_steps": SAVE, "precision": "fp32"}
        data = sft_spec(f"hf:{self.base}", **few, **hyperparams)
        spec = TrainJobSpec.model_validate({**data, "resources": {"gpus": 1}, "dataset_ref": "desk@v1"})
        self.wiring.catalog.add_recipe(spec.recipe_key(), spec.recipe())
        # Else a run would come first that materialises the recipe.
        self.instance.add_dynamic_partitions(recipes.name, [spec.recipe_key()])
        self.wiring.catalog.request_training("desk@v1", spec.recipe_key(), f"{STUDY_ACTOR}kills")
        return Training(self, training_key("desk@v1", spec.recipe_key()))

    def gpu_is_free(self) -> bool:
        with lease(discover(GPU), self.root / "gpus", timeout=0.0, poll=0.01) as held:
            return bool(held)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def platform(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("kills") / "home"
    port, admin_port = free_port(), free_port()
    wiring = Wiring(Settings(home=root, gateway_port=port, gateway_admin_port=admin_port, _env_file=None))
    prepare_home(wiring.settings)
    ref = f"hf:{tiny_base}"
    found = inspect_base(ref, "llama", wiring.policy)
    wiring.catalog.register_base(ref, family="llama", path=ref, content_hash=found.content_hash, license="test")
    wiring.catalog.approve_base(ref, "a person")
    entry = {"name": "desk", "version": "v1", "type": "sft_pair", "files": ["x.jsonl"], "owner": "team:tests"}
    wiring.catalog.register_dataset(DatasetSpec.model_validate({**entry, "description": "a test"}), "0")
    frames = {name: chat_frame(conversations(count, seed)) for seed, (name, count) in enumerate(SIZES.items())}
    common = {"stratify_by": None, "group_by": None, "seed": 0, "data_hash": "hash-of-desk"}
    manifests = write_splits(wiring.store, "desk@v1", frames)
    rows = dict(SIZES)
    wiring.records.save(
        "desk@v1", SplitsRecord(dataset="desk@v1", type="sft_pair", manifests=manifests, rows=rows, **common)
    )
    # Whatever this session was started with, a platform of its own knows nothing of it.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLMOPS_", "DAGSTER_"))}
    environment = {
        **kept,
        **GPU,
        "LLMOPS_HOME": str(root),
        "LLMOPS_GATEWAY_PORT": str(port),
        "LLMOPS_GATEWAY_ADMIN_PORT": str(admin_port),
        "LLMOPS_SENSOR_INTERVAL_SECONDS": "1",
        "LLMOPS_OMP_THREADS": "1",
    }
    with dg.DagsterInstance.from_config(str(wiring.settings.dagster_home)) as instance:
        instance.add_dynamic_partitions(dataset_versions.name, ["desk@v1"])
        found = Platform(wiring, instance, environment, tiny_base)
        try:
            found.start()
            yield found
        finally:
            for process in found.processes():
                process.kill()
            if found.up is not None:
                found.up.kill()
                found.up.wait()


def undisturbed(training: Training, folder: Path) -> bytes:
    """The weights of a training that nothing disturbed: the very job of `training`, in this process."""
    job = json.loads((training.folder / "work" / "train.json").read_text())
    facts = run_here({**job, "checkpoints": str(folder / "checkpoints"), "output": str(folder / "adapter")}, folder)
    assert facts["resumed_from"] is None
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def weights(training: Training) -> bytes:
    return (training.folder / "adapter" / "adapter_model.safetensors").read_bytes()


@dataclass
class Story:
    """Two trainings that share one GPU, and what was seen at each of three kills."""

    first: Training
    second: Training
    at_kill: dict[str, Any]


@pytest.fixture(scope="module")
def story(platform: Platform) -> Story:
    both = [platform.ask(seed=1), platform.ask(seed=2)]
    until(lambda: any(t.trains_on() or t.failed() for t in both), "a checkpoint of the first training")
    first, second = sorted(both, key=lambda t: t.trainer() is None)
    seen: dict[str, Any] = {}
    until(second.runs, "the second run")
    seen["second waits"] = [run.status for run in second.runs()]

    # With the in-process executor the step and the run are one process.
    trainer = first.trainer()
    seen["run: step"] = first.step()
    trainer.parent().kill()
    trainer.wait(DEADLINE)
    seen["run: step of the orphan"] = first.step()
    until(lambda: len(first.runs()) == 2, "the run that takes the first training up again")

    trainer = until(second.trains_on, "a checkpoint of the second training")
    seen["trainer: step"] = second.step()
    trainer.kill()
    trainer.wait(DEADLINE)
    seen["trainer: GPU is free"] = platform.gpu_is_free()
    until(lambda: second.trains_on(seen["trainer: step"]), "the second training to go on")

    daemon = platform.component("llmops_assets.local.daemon")
    seen["daemon: queued"] = first.runs()[-1].status
    daemon.kill()
    daemon.wait(DEADLINE)
    until(lambda: platform.component("llmops_assets.local.daemon"), "another daemon")
    for training in both:
        until(training.record, f"the end of {training.cell}")
    return Story(first, second, seen)


def test_a_killed_run_leaves_its_gpu_and_is_taken_up_again_from_its_checkpoint(story: Story, tmp_path: Path) -> None:
    first = story.first
    killed, again = first.runs()
    assert story.at_kill["second waits"] == [dg.DagsterRunStatus.QUEUED], "one GPU, one run"
    assert killed.is_failure and again.is_success and again.parent_run_id == killed.run_id
    # The orphan noticed, saved where it was and ended.
    assert SAVE <= story.at_kill["run: step"] <= story.at_kill["run: step of the orphan"] < STEPS
    assert first.starts() == [0, story.at_kill["run: step of the orphan"]], "begun twice, and nothing trained twice"
    record = first.record()
    assert record.resumed_from == story.at_kill["run: step of the orphan"] and record.steps == STEPS
    assert weights(first) == undisturbed(first, tmp_path)


def test_a_killed_trainer_is_begun_again_in_the_same_run(story: Story, tmp_path: Path) -> None:
    second = story.second
    (run,) = second.runs()
    assert run.is_success
    assert story.at_kill["trainer: GPU is free"]
    began, resumed = second.starts()
    assert began == 0 and SAVE <= story.at_kill["trainer: step"] <= resumed < STEPS
    assert second.record().resumed_from == resumed
    assert weights(second) == undisturbed(second, tmp_path)


def test_a_killed_daemon_is_started_again_and_goes_on_with_what_was_queued(platform: Platform, story: Story) -> None:
    assert story.at_kill["daemon: queued"] == dg.DagsterRunStatus.QUEUED
    assert platform.up.poll() is None
    for training in (story.first, story.second):
        found = platform.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey("adapter"), asset_partitions=[training.cell]), limit=10
        )
        assert len(found.records) == 1 and not training.record().reused
        assert platform.wiring.tracking.run_status(training.record().mlflow_run_id) == "FINISHED"
    assert platform.gpu_is_free()
    assert not [command for command in platform.processes().values() if "images.train" in command]


def seen_before(spec: TrainJobSpec, storage: str, losses: dict[int, float]) -> None:
    """Make a study that saw five trainings a little worse than `losses`, by which validation they are of; it is to try
    `LEAST`, then a good rate."""
    study = search.open_study(spec, storage)
    for number in range(search.STARTUP_TRIALS):
        trial = study.ask()
        search.propose(trial, spec.search)
        trial.set_user_attr(search.PARTITION, f"desk@v1|seen-before-{number}")
        for index, loss in losses.items():
            trial.report(loss * 1.05, index)
        study.tell(trial, losses[max(losses)] * 1.05)
    for rate in (LEAST, 5e-3):
        study.enqueue_trial({"lr": rate})


def test_a_hopeless_trial_is_cut_off_while_it_trains_and_a_killed_search_goes_on(
    platform: Platform, story: Story, tmp_path: Path
) -> None:
    # The validation at which it was killed may be missing.
    curve = [point for point in story.first.record().curve if point.eval_loss is not None]
    losses = {point.step // VALIDATE - 1: point.eval_loss for point in curve if point.eval_loss is not None}
    few = {"max_steps": STEPS, "num_epochs": STEPS, "save_steps": STEPS, "eval_steps": VALIDATE, "precision": "fp32"}
    data = sft_spec(f"hf:{platform.base}", **few) | {"resources": {"gpus": 1}, "dataset_ref": "desk@v1"}
    data["search"] = {"lr": {"low": LEAST, "high": 5e-3, "log": True}}
    file = tmp_path / "tuned.yaml"
    file.write_text(yaml.safe_dump(data))
    spec = TrainJobSpec.model_validate(data)
    seen_before(spec, f"sqlite:///{platform.root / 'studies.db'}", losses)
    command = [sys.executable, "-m", "llmops_assets.cli", "tune", str(file), "--trials", "7", "--json"]

    hopeless, good = (
        Training(platform, training_key("desk@v1", search.spec_of(spec, {"lr": rate}).recipe_key()))
        for rate in (LEAST, 5e-3)
    )
    # Else a run would come first for each that materialises its recipe.
    platform.instance.add_dynamic_partitions(recipes.name, [t.cell.split("|")[1] for t in (hopeless, good)])
    first = subprocess.Popen(command, env=platform.environment, stdout=subprocess.DEVNULL)
    until(hopeless.trainer, "the training of the hopeless trial")
    first.kill()
    first.wait()
    done = subprocess.run(command, env=platform.environment, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert [t["state"] for t in told["trials"]] == ["complete"] * 5 + ["pruned", "complete"]
    pruned, best = told["trials"][5:]
    assert (pruned["partition"], best["partition"]) == (hopeless.cell, good.cell)
    assert told["best"]["partition"] == good.cell and best["value"] < pruned["value"]
    assert "trial 5: cut off" in done.stderr

    # It was still training, and nothing is made of it.
    assert hopeless.runs() and all(run.status is dg.DagsterRunStatus.CANCELED for run in hopeless.runs())
    records = platform.wiring.records
    assert records.find(AdapterRecord, hopeless.cell) is None
    step = progress.read(hopeless.folder).step
    assert VALIDATE <= step < STEPS
    note = (hopeless.folder / "mlflow-run.txt").read_text()
    assert platform.wiring.tracking.run_status(note) == "KILLED"
    written = TrainJobSpec.model_validate(yaml.safe_load(file.with_suffix(".best.yaml").read_text()))
    assert written.recipe_key() == search.spec_of(spec, {"lr": 5e-3}).recipe_key()
    (shown,) = platform.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("study"), asset_partitions=[told["study"]]), limit=1
    ).records
    assert shown.asset_materialization.metadata["pruned"].value == 1
    assert good.record().steps == STEPS
    for cell in (hopeless.cell, good.cell):
        assert records.find(MergedModelRecord, cell) is None, "trials are compared, and go no further"


def test_a_killed_supervisor_takes_its_platform_with_it(platform: Platform, story: Story) -> None:
    assert len(platform.processes()) >= 4, "up, code server, daemon and gateway"
    platform.up.kill()
    platform.up.wait()
    until(lambda: not platform.processes(), "the end of everything that it had started")
