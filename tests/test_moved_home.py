"""A home that was backed up, destroyed, restored and moved: everything goes on, and nothing trains again."""

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from mlflow.tracking._tracking_service import utils
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.evaluation import assets as evaluation_assets
from llmops_assets.operations.backups import back_up, restore
from llmops_assets.operations.verification import verify
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.registry.assets import registered_model
from llmops_assets.serving import rollout
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.evaluation_rules import Gate
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.training import assets as training_assets
from llmops_assets.wiring import Wiring
from resources import content
from resources.dataset_store import DatasetStore
from resources.trainer import Trainer
from tests.evaluation.conftest import make_tiny_model
from tests.specs.builders import DEPLOYMENT
from tests.training.conftest import SIZES, add_cell, chat_frame, conversations, sft_spec
from tests.training.conftest import write_splits as written

TRAINED = ("training_plan", "adapter", "merged_model")
EARLY = {"early_stopping": {"patience": 3}, "eval_steps": 4, "max_seq_len": 512}
# A dozen of workers start one after the other, which takes its time beside a busy machine.
pytestmark = pytest.mark.timeout(1800)


class Watched(Trainer):
    """The trainer of the platform, which also notes what it was asked for."""

    tasks: list[str]

    def run(self, context: Any, job: Any, **more: Any) -> dict[str, Any]:
        self.tasks.append(job.task)
        return super().run(context, job, **more)


class Home:
    """An installation in a folder, on a Dagster instance in it."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.root, self.instance = root, instance
        self.w = Wiring(Settings(home=root, engines=root / "engines", _env_file=None))
        self.trainer = Watched(dg.PipesSubprocessClient(), locks=root / "gpus", threads=1, keys=self.w.keys)
        self.trainer.tasks = []
        names = ("settings", "records", "store", "artifacts", "catalog", "tracking")
        self.resources = {name: getattr(self.w, name) for name in names}
        self.resources |= {"policy": open_gates(self.w.policy), "trainer": self.trainer}

    def run(self, cell: str, *names: str) -> dg.ExecuteInProcessResult:
        graph = dg.Definitions(
            assets=[
                dg.AssetSpec("splits", partitions_def=dataset_versions),
                *dg.load_assets_from_modules([training_assets]),
                evaluation_assets.evaluation,
                registered_model,
            ],
            jobs=[dg.define_asset_job("cell", selection=dg.AssetSelection.assets(*names))],
            resources=self.resources,
        )
        return graph.resolve_job_def("cell").execute_in_process(instance=self.instance, partition_key=cell)

    def register(self, key: str, kind: str, manifests: dict[str, str]) -> None:
        name, version = key.split("@")
        entry = {"name": name, "version": version, "type": kind, "files": ["x.jsonl"], "owner": "team:tests"}
        self.w.catalog.register_dataset(DatasetSpec.model_validate({**entry, "description": "a test"}), "0")
        facts = {"dataset": key, "type": kind, "manifests": manifests, "rows": dict(SIZES), "stratify_by": None}
        self.w.records.save(key, SplitsRecord(**facts, group_by=None, seed=0, data_hash=f"hash-of-{name}"))
        self.instance.add_dynamic_partitions(dataset_versions.name, [key])


def open_gates(policy: Policy) -> Policy:
    """A policy that registers a model of some thousand weights, whatever it says."""
    gate = Gate(metric="accuracy", suite="test", judge="exact", at_least=0.0, n_at_least=1)
    return policy.model_copy(update={"gates": {**policy.gates, "SFT": gate}})


@contextmanager
def opened(root: Path) -> Iterator[Home]:
    (root / "dagster").mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.local_temp(str(root / "dagster")) as instance:
        yield Home(root, instance)


def naming(root: Path, old: Path) -> list[str]:
    """What below `root` names the folder `old`: files by their names, databases by their rows."""
    found = []
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
        if path.suffix == ".db":
            with sqlite3.connect(path) as connection:
                lines = [line for line in connection.iterdump() if str(old) in line]
                found += [f"{path.name}: {line[line.index(str(old)) - 150 :][:300]}" for line in lines]
        elif str(old).encode() in path.read_bytes():
            found.append(str(path.relative_to(root)))
    return found


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str, dict[str, Any], Path]]:
    """A home with a base model, a training of it and the registered model, moved; its cell, and what it was before."""
    old = tmp_path_factory.mktemp("old-host") / "home"
    with opened(old) as home:
        store = DatasetStore(home.w.artifacts.upath("datasets"))
        columns = {"category": pl.lit("toll"), "extra": pl.lit("{}")}
        frames = {name: chat_frame(conversations(n, i)) for i, (name, n) in enumerate(SIZES.items())}
        chat = {name: frame.with_columns(**columns) for name, frame in frames.items()}
        home.register("desk@v1", "sft_pair", written(store, "desk@v1", chat))
        base = make_tiny_model(old / "bases" / "tiny")
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | {"llmops_family_version": "3.0"}))
        about = {"family": "llama", "path": str(base), "content_hash": content.content_hash(base), "license": None}
        home.w.catalog.register_base("tiny", **about)
        home.w.catalog.approve_base("tiny")
        cell = add_cell(home.w.catalog, home.instance, sft_spec("tiny", **EARLY), "desk@v1")
        home.run(cell, *TRAINED)
        home.run(cell, "evaluation")
        home.run(cell, "registered_model")
        assert "train" in home.trainer.tasks
        records = home.w.records
        before = {r.asset: records.load(r, cell) for r in (PlanRecord, AdapterRecord, MergedModelRecord)}
        named = naming(old, old)
        home.w.catalog.database.engine.dispose()
    # Logs, jobs that are over and their results tell of where they ran: nothing reads them again.
    jobs = re.compile(r"/work/|/checkpoints/|^artifacts/answers/[^/]+/generate\.(json|result|log)$")
    left = [name for name in named if not jobs.search(name)]
    assert not left, "\n".join(left)
    # Backed up, destroyed and restored elsewhere, and that copied once more.
    away = tmp_path_factory.mktemp("away")
    back_up(home.w, "kim", away / "backup", keys=away / "keys")
    shutil.rmtree(old)
    restored = Wiring(Settings(home=away / "restored", _env_file=None))
    restore(restored, "kim", away / "backup", keys=away / "keys")
    found = verify(restored, "kim")
    assert not found.faults and found.looked_at["adapters and models"] == 2 == 2 * found.looked_at["registered models"]
    restored.catalog.database.engine.dispose()
    new = tmp_path_factory.mktemp("new-host") / "elsewhere" / "platform"
    shutil.copytree(away / "restored", new, symlinks=True)
    shutil.rmtree(away)
    # Another host is another process: MLflow keeps in this one where the artifacts of a run were.
    utils._artifact_repos_cache.clear()
    with opened(new) as home:
        yield home, cell, before, old


def test_what_was_made_is_used_and_nothing_trains_again(moved) -> None:
    home, cell, before, old = moved
    for asset in (*TRAINED, "evaluation", "registered_model"):
        assert home.run(cell, asset).success
    assert set(home.trainer.tasks) <= {"generate"}, "only the latency of single answers is measured anew"
    records = home.w.records
    plan, adapter = records.load(PlanRecord, cell), records.load(AdapterRecord, cell)
    assert plan.training_key == before["training_plan"].training_key
    assert adapter.reused and adapter.content_hash == before["adapter"].content_hash
    evaluation, model = records.load(EvaluationRecord, cell), records.load(RegisteredModelRecord, cell)
    for path in (plan.model_dir, adapter.path, model.path, model.card, evaluation.answers, evaluation.report):
        assert Path(path).exists() and Path(path).is_relative_to(home.root)
    assert [v.ref for v in home.w.tracking.models("tiny-desk")] == [model.ref]
    assert not old.exists()


def test_it_can_be_served_and_downloaded(moved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, _cell, before, old = moved
    model = home.w.tracking.model("tiny-desk@1")
    spec = DeploymentSpec.model_validate(
        {**DEPLOYMENT, "model_ref": model.ref, "model_family": "llama", "resources": {"gpus": 0}}
    )
    rollout.admit(model, "approved", spec, load_policy())
    assert rollout.target_of(spec, model).model_path == model.path and (Path(model.path) / "config.json").is_file()
    monkeypatch.setenv("LLMOPS_HOME", str(home.root))
    common.wiring.cache_clear()
    try:
        done = CliRunner().invoke(app, ["model", "download", model.ref, str(tmp_path / "copy")])
        assert done.exit_code == 0, done.output + repr(done.exception)
        shown = CliRunner().invoke(app, ["model", "card", model.ref])
        assert "## Limits" in shown.output
    finally:
        common.wiring.cache_clear()
    assert content.content_hash(tmp_path / "copy") == before["merged_model"].content_hash
    assert not old.exists()


def test_a_training_that_was_cut_off_goes_on_from_its_checkpoint_with_the_best_weights(moved) -> None:
    home, cell, before, old = moved
    plan = home.w.records.load(PlanRecord, cell)
    shutil.rmtree(Path(plan.model_dir) / "adapter")
    home.run(cell, "adapter")
    adapter = home.w.records.load(AdapterRecord, cell)
    assert adapter.resumed_from is not None and not adapter.reused
    # Early stopping loads the best checkpoint at the end, which the state names by where it was.
    assert adapter.content_hash == before["adapter"].content_hash
    assert not old.exists()
