"""A home with an ingested dataset of questions and passages, and a registered encoder, on a real Dagster instance."""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from llmops_assets.datasets import assets as dataset_assets
from llmops_assets.datasets import checks as dataset_checks
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.indexes import build_index
from llmops_assets.partitions import dataset_versions, recipes
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.retrieval import assets as retrieval_assets
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.retrieval import desk
from tests.training.conftest import write_splits

RESOURCES = ("artifacts", "store", "records", "catalog", "policy", "settings", "tracking", "indexes")


def open_home(root: Path) -> Wiring:
    """A prepared home in `root`."""
    w = Wiring(Settings(home=root, _env_file=None))
    prepare_home(w.settings)
    return w


def materialise(w: Wiring, partition: str, names: tuple[str, ...], **config: Any) -> dg.ExecuteInProcessResult:
    """Run assets on one partition, with their checks and the worker in this process."""
    os.environ["DAGSTER_HOME"] = str(w.settings.dagster_home)
    resources = {name: getattr(w, name) for name in RESOURCES}
    resources["trainer"] = desk.Here(locks=w.settings.root / "gpus", keys=w.keys)
    outside = [dg.AssetSpec("merged_model", partitions_def=retrieval_assets.trainings)]
    definitions = dg.Definitions(
        assets=[*dg.load_assets_from_modules([dataset_assets, retrieval_assets]), *outside],
        asset_checks=dg.load_asset_checks_from_modules([dataset_checks]),
        jobs=[dg.define_asset_job("those", selection=dg.AssetSelection.assets(*names))],
        resources=resources,
    )
    with dg.DagsterInstance.get() as instance:
        dataset, _, recipe = partition.partition("|")
        instance.add_dynamic_partitions(str(dataset_versions.name), [dataset])
        if recipe:
            instance.add_dynamic_partitions(str(recipes.name), [recipe])
        run_config = {"ops": {names[0]: {"config": config}}} if config else None
        return definitions.resolve_job_def("those").execute_in_process(
            partition_key=partition, instance=instance, raise_on_error=False, run_config=run_config
        )


def ingest(w: Wiring, key: str, rows: list[dict[str, Any]], kind: str = "rag_qa") -> None:
    """Register rows as a version and take them to their splits."""
    name, version = key.split("@")
    values = {"name": name, "version": version, "type": kind, "files": ["rows.jsonl"], "owner": "team:tests"}
    spec = DatasetSpec.model_validate(
        {**values, "description": "made for a test", "split": {"ratios": [0.6, 0.1, 0.3]}}
    )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    w.artifacts.write_bytes(lines.encode(), "uploads", key, "rows.jsonl")
    w.catalog.register_dataset(spec, f"digest of {key}")
    result = materialise(w, key, ("dataset", "quality_report", "clean_dataset", "splits"))
    assert result.success


def split(w: Wiring, key: str, rows: list[dict[str, Any]]) -> None:
    """Register rows as a version whose splits are there, without its stages: every third row is a test row."""
    name, version = key.split("@")
    values = {"name": name, "version": version, "type": "rag_qa", "files": ["rows.jsonl"], "owner": "team:tests"}
    w.catalog.register_dataset(DatasetSpec.model_validate({**values, "description": "made for a test"}), key)
    frame = pl.DataFrame(
        [
            {
                "row_id": f"{key}-{number}",
                "source": None,
                "category": row["metadata"]["category"],
                "question": row["question"],
                "answer": row["answer"],
                "positives": row["positives"],
                "negatives": [],
            }
            for number, row in enumerate(rows)
        ],
        schema_overrides={"source": pl.String, "negatives": pl.List(pl.String)},
    )
    third = pl.int_range(pl.len()) % 3
    frames = {split: frame.filter(third == n) for n, split in enumerate(("train", "validation", "test"))}
    w.records.save(
        key,
        SplitsRecord(
            dataset=key,
            type="rag_qa",
            manifests=write_splits(w.store, key, frames),
            rows={split: part.height for split, part in frames.items()},
            stratify_by=None,
            group_by=None,
            seed=0,
            data_hash=key,
        ),
    )


def index(w: Wiring, dataset: str, encoder: str, **more: Any) -> dg.ExecuteInProcessResult:
    """Want an index as the command does, and run what the sensor asks for."""
    wanted = build_index(w, "test", dataset, encoder, **more)
    return materialise(w, wanted.partition, ("retrieval_index",))
