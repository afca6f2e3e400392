"""An installation in a folder whose whole graph runs in this process: for tests and benchmarks that go through it."""

import json
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._utils.error import SerializableErrorInfo

from benchmarks.warm_worker import WarmTrainer
from llmops_assets.operations.datasets import register_dataset
from llmops_assets.operations.endpoints import want_endpoint
from llmops_assets.operations.trainings import request_training
from llmops_assets.partitions import dataset_versions, endpoints, experiments, recipes
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import DEFAULT_POLICY
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring

ACTOR = "benchmark"
DATASET = ("dataset", "quality_report", "clean_dataset", "splits")
TRAINING = ("training_plan", "adapter", "merged_model", "evaluation", "registered_model")


@dataclass(frozen=True)
class Ran:
    """What came of a run: the checks by name, and what its failed steps say."""

    result: dg.ExecuteInProcessResult

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def checks(self) -> dict[str, dg.AssetCheckEvaluation]:
        return {e.check_name: e for e in self.result.get_asset_check_evaluations()}

    @property
    def made(self) -> set[str]:
        """The assets that the run materialised."""
        return {e.asset_key.to_user_string() for e in self.result.get_asset_materialization_events() if e.asset_key}

    @property
    def seconds(self) -> dict[str, float]:
        """What each step took, assets and checks by name."""
        events = self.result.filter_events(lambda event: event.is_step_success)
        return {str(e.step_key): e.step_success_data.duration_ms / 1000 for e in events}

    @property
    def failed(self) -> dict[str, str]:
        """What is said by check or asset of all that failed, warnings aside."""
        errors = dg.AssetCheckSeverity.ERROR
        found = {n: e.description or "" for n, e in self.checks.items() if not e.passed and e.severity == errors}
        for event in self.result.all_events:
            if event.is_step_failure and event.step_key is not None:
                data = event.step_failure_data
                reason = data.user_failure_data.description if data.user_failure_data else None
                # A step that fails because a blocking check did has nothing to add.
                if data.error is None or data.error.cls_name != "DagsterAssetCheckFailedError":
                    found[event.step_key] = reason or _root(data.error)
        return found


def _root(error: SerializableErrorInfo | None) -> str:
    """The words of the first cause of an error."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message if error is not None else ""


@dataclass
class Installation:
    """A home and its graph. What is not said otherwise is as a user's: files, specs, a policy file, operations."""

    root: Path
    instance: dg.DagsterInstance
    settings: Settings
    trainer: WarmTrainer
    w: Wiring = field(init=False)
    jobs: dict[str, dg.JobDefinition] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.w = Wiring(self.settings)
        self._graph: dg.Definitions | None = None

    @property
    def graph(self) -> dg.Definitions:
        """The definitions of the platform itself, but for where the worker's processes come from."""
        if self._graph is None:
            from llmops_assets.definitions import build

            names = ("catalog", "records", "artifacts", "store", "tracking", "servers", "gateway", "engines", "policy")
            same = {name: getattr(self.w, name) for name in names}
            self._graph = build(self.settings, {**same, "trainer": self.trainer})
        return self._graph

    def run(self, partition: str, *assets: str, config: Mapping[str, Any] | None = None) -> Ran:
        """Materialise assets of a partition in one run, with their checks; nothing is raised."""
        name = "_".join(assets)
        if name not in self.jobs:
            job = dg.define_asset_job(name, selection=dg.AssetSelection.assets(*assets))
            self.jobs[name] = dg.Definitions.merge(self.graph, dg.Definitions(jobs=[job])).resolve_job_def(name)
        return Ran(
            self.jobs[name].execute_in_process(
                instance=self.instance, partition_key=partition, run_config=config, raise_on_error=False
            )
        )

    def register(self, key: str, kind: str, rows: Sequence[Mapping[str, Any]] | Path, **more: Any) -> DatasetSpec:
        """Write rows to a file and register it as a dataset version; a path is registered as it is."""
        name, version = key.split("@")
        file = rows if isinstance(rows, Path) else self.root / "files" / f"{name}-{version}.jsonl"
        if not isinstance(rows, Path):
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        about = {"owner": "team:desk", "description": "Rows of a small desk", "files": [file.name]}
        spec = DatasetSpec.model_validate({"name": name, "version": version, "type": kind, **about, **more})
        register_dataset(self.w, ACTOR, spec, [str(file)])
        self.instance.add_dynamic_partitions(dataset_versions.name, [key])
        return spec

    def ingest(self, key: str, kind: str, rows: Sequence[Mapping[str, Any]] | Path, **more: Any) -> Ran:
        """Register rows, and make their splits."""
        self.register(key, kind, rows, **more)
        return self.run(key, *DATASET)

    def request(self, spec: Mapping[str, Any] | TrainJobSpec) -> str:
        """Ask for a training as a user does; its partition."""
        checked = spec if isinstance(spec, TrainJobSpec) else TrainJobSpec.model_validate(dict(spec))
        wanted = request_training(self.w, ACTOR, checked)
        self.instance.add_dynamic_partitions(recipes.name, [wanted.recipe])
        return wanted.partition

    def train(self, spec: Mapping[str, Any] | TrainJobSpec, *assets: str) -> tuple[str, Ran]:
        """Ask for a training and run it: all the way to the registry, or the assets named. Its partition, the run."""
        partition = self.request(spec)
        return partition, self.run(partition, *(assets or TRAINING))

    def deploy(self, spec: Mapping[str, Any]) -> Ran:
        """Say what an endpoint shall serve, and have it deployed."""
        wanted = want_endpoint(self.w, ACTOR, DeploymentSpec.model_validate(dict(spec)))
        self.instance.add_dynamic_partitions(endpoints.name, [wanted.endpoint])
        return self.run(wanted.endpoint, "deployment")

    def add_experiment(self, name: str) -> None:
        self.instance.add_dynamic_partitions(experiments.name, [name])


def write_policy(root: Path, changes: Mapping[str, Any]) -> Path:
    """A policy file in `root`: the shipped one with `changes`, whose keys are dotted names."""
    policy = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
    for name, value in changes.items():
        part, names = policy, name.split(".")
        for step in names[:-1]:
            part = part[step]
        part[names[-1]] = value
    root.mkdir(parents=True, exist_ok=True)
    file = root / "policy.yaml"
    file.write_text(yaml.safe_dump(policy, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return file


@contextmanager
def opened(root: Path, policy: Mapping[str, Any] | None = None) -> Iterator[Installation]:
    """The installation in the folder `root`, new or as it was left; its model servers are suspended at the end.

    `policy` changes fields of its policy, by dotted name.
    """
    (root / "dagster").mkdir(parents=True, exist_ok=True)
    file = root / "policy.yaml"
    if policy is not None or not file.exists():
        file = write_policy(root, policy or {})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(
        home=root,
        policy_file=file,
        engines=root / "engines",
        # Nothing listens there: the graph then has no gateway to wait for.
        gateway_port=port,
        omp_threads=1,
        _env_file=None,
    )
    with dg.DagsterInstance.local_temp(str(root / "dagster")) as instance:
        one = Installation(root, instance, settings, WarmTrainer(locks=root / "gpus", threads=1))
        try:
            yield one
        finally:
            one.w.servers.suspend()


def copied(root: Path, to: Path) -> Path:
    """A copy of the installation in `root`, for a fault of its own; the original must not be open for writing."""
    return Path(shutil.copytree(root, to, symlinks=True))
