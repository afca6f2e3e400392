"""The whole loop as a new user runs it: cut off in the middle of a training, run again, and once more."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord
from llmops_assets.specs.files import load_spec
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring

SPECS = Path(__file__).parents[1] / "examples" / "expressway" / "specs"
DEADLINE = 1500

pytestmark = pytest.mark.timeout(3 * DEADLINE)


def spec(name: str) -> TrainJobSpec:
    found = load_spec(SPECS / f"{name}.yaml")
    assert isinstance(found, TrainJobSpec)
    return found


def cell(name: str) -> str:
    return f"{spec(name).dataset_ref}|{spec(name).recipe_key()}"


@dataclass
class Home:
    """One installation, and what the demo said in each of its runs."""

    environment: dict[str, str]
    wiring: Wiring
    cut_off_at: int
    table: list[dict[str, str]]
    again: list[dict[str, str]]
    seconds_again: float

    def value(self, what: str, partition: str) -> str:
        return next(line["value"] for line in self.table if (line["what"], line["partition"]) == (what, partition))


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def kill_everything(process: subprocess.Popen) -> None:
    """What a power cut does to the demo: every process of it ends at once."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.send_signal(signal.SIGSTOP)
    for member in family:
        member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=30)


def run(environment: dict[str, str], log: Path) -> list[dict[str, str]]:
    with open(log, "w") as said:
        done = subprocess.run(
            [sys.executable, "-m", "llmops_assets.cli", "demo", "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            timeout=DEADLINE,
        )
    assert done.returncode == 0, log.read_text()[-4000:]
    return json.loads(done.stdout[: done.stdout.rindex("]") + 1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("demo")
    gateway, admin, dagster, mlflow, console = free_ports(5)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LLMOPS_", "DAGSTER_", "OMP_"))},
        "LLMOPS_HOME": str(folder / "home"),
        "LLMOPS_GATEWAY_PORT": str(gateway),
        "LLMOPS_GATEWAY_ADMIN_PORT": str(admin),
        "LLMOPS_DAGSTER_PORT": str(dagster),
        "LLMOPS_MLFLOW_PORT": str(mlflow),
        "LLMOPS_CONSOLE_PORT": str(console),
    }
    wiring = Wiring(Settings(home=folder / "home", gateway_port=gateway, gateway_admin_port=admin, _env_file=None))
    cut_off_at = start_and_cut_off(environment, folder / "first.log")
    table = run(environment, folder / "second.log")
    began = time.monotonic()
    again = run(environment, folder / "third.log")
    yield Home(environment, wiring, cut_off_at, table, again, time.monotonic() - began)


def start_and_cut_off(environment: dict[str, str], log: Path) -> int:
    """Run the demo until the fine-tuning has saved a checkpoint, and pull the plug; the step of the checkpoint."""
    with open(log, "w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmops_assets.cli", "demo"], env=environment, stdout=said, stderr=said
        )
    models = Path(environment["LLMOPS_HOME"]) / "artifacts" / "models" / "sft" / spec("tuned").output.artifact_name
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-4000:]
        if sealed := list(models.glob("*/checkpoints/checkpoint-*/complete.json")):
            kill_everything(process)
            return max(int(path.parent.name.split("-")[1]) for path in sealed)
        time.sleep(0.2)
    kill_everything(process)
    pytest.fail(f"no checkpoint of the fine-tuning within {DEADLINE} s:\n{log.read_text()[-4000:]}")


def test_the_data_holds_what_was_planted(home: Home):
    planted = json.loads((home.wiring.settings.root / "demo" / "planted.json").read_text())
    assert home.value("rows in", "expressway-desk@v1") == f"{planted['rows'] - sum(planted['broken'].values()):,}"
    assert home.value("quarantined", "expressway-desk@v1") == str(sum(planted["broken"].values()))
    exact, near = (int(part.split()[0]) for part in home.value("duplicates", "expressway-desk@v1").split(", "))
    assert exact == planted["exact_duplicates"]
    assert near == planted["near_duplicates"]


def test_a_training_that_was_cut_off_goes_on_from_its_checkpoint(home: Home):
    adapter = home.wiring.records.load(AdapterRecord, cell("tuned"))
    assert adapter.resumed_from is not None
    assert adapter.resumed_from >= home.cut_off_at
    assert not adapter.reused
    assert home.wiring.tracking.run_status(adapter.mlflow_run_id) == "FINISHED"


def test_the_tuned_model_earns_its_gate(home: Home):
    evaluation = home.wiring.records.load(EvaluationRecord, cell("tuned"))
    accuracy = evaluation.metric("test", "accuracy")
    assert accuracy.value >= 0.90
    assert accuracy.n >= 200
    assert accuracy.low < accuracy.value < accuracy.high
    assert evaluation.metric("test", "accuracy", "base").value < 0.05
    assert evaluation.metric("expressway-free@v1", "accuracy").n == 30


def test_the_undertrained_model_is_withheld_by_a_green_run(home: Home):
    evaluation = home.wiring.records.load(EvaluationRecord, cell("undertrained"))
    assert evaluation.metric("test", "accuracy").value < 0.90
    assert home.wiring.records.find(RegisteredModelRecord, cell("undertrained")) is None
    assert home.value("gate", cell("undertrained")).startswith("withheld")


def test_the_better_model_is_promoted(home: Home):
    registered = home.wiring.records.load(RegisteredModelRecord, cell("tuned"))
    assert home.value("A/B decision", "desk-tuned-against-base").startswith("promote")
    endpoint = home.wiring.catalog.endpoint("desk")
    assert [(route["model_ref"], route["weight"]) for route in endpoint.routes] == [(registered.ref, 100)]
    assert home.wiring.tracking.version(f"{registered.name}@production").ref == registered.ref
    base = home.wiring.records.load(RegisteredModelRecord, cell("base"))
    assert "production" not in home.wiring.tracking.version(base.ref).aliases


def test_run_again_it_trains_nothing(home: Home):
    log = (home.wiring.settings.root.parent / "third.log").read_text()
    assert "training_plan" not in log
    assert "adapter" not in log
    assert home.again == home.table
    assert home.seconds_again < 180


def test_nothing_is_left_running(home: Home):
    ours = home.environment["LLMOPS_HOME"]
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LLMOPS_HOME") == ours and process.pid != os.getpid():
                left.append(process.cmdline())
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    assert left == []


def test_the_specs_name_the_base_that_the_demo_trains():
    assert spec("tuned").base_model_ref == spec("undertrained").base_model_ref == cell("base")
