"""One installation whose dataset stages are done, with the training assets on a real Dagster instance."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.training import assets, checks
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.records import Records
from resources.tracking import Tracking
from resources.trainer import Trainer
from tests.training.conftest import SIZES, Desk, add_cell


@dataclass
class House:
    """An instance, and the resources that its assets get."""

    instance: dg.DagsterInstance
    resources: dict[str, Any]

    @property
    def records(self) -> Records:
        return self.resources["records"]

    def request(self, recipe: dict[str, Any], dataset: str) -> str:
        return add_cell(self.resources["catalog"], self.instance, recipe, dataset)

    def run(
        self, cell: str, *names: str, raises: bool = True, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        upstream = [dg.AssetSpec("splits", partitions_def=dataset_versions)]
        selection = dg.AssetSelection.assets(*(names or ("training_plan", "adapter", "merged_model")))
        defs = dg.Definitions(
            assets=[*upstream, *dg.load_assets_from_modules([assets])],
            asset_checks=dg.load_asset_checks_from_modules([checks]),
            jobs=[dg.define_asset_job("cell", selection=selection)],
            resources=self.resources,
        )
        return defs.resolve_job_def("cell").execute_in_process(
            instance=self.instance, partition_key=cell, raise_on_error=raises, tags=tags
        )


@contextmanager
def opened(root: Path, desk: Desk, trainer: Trainer) -> Iterator[House]:
    """A house in the folder `root` whose registered data sets are those of `desk`."""
    catalog = Catalog(f"sqlite:///{root}/catalog.db")
    records = Records(root / "records")
    for key, kind, manifests in (
        ("corpus@v1", "pretrain_corpus", desk.corpus),
        ("desk@v1", "sft_pair", desk.chat),
    ):
        name, version = key.split("@")
        entry = {"name": name, "version": version, "type": kind, "files": ["x.jsonl"], "owner": "team:tests"}
        catalog.register_dataset(DatasetSpec.model_validate({**entry, "description": "a test"}), "0")
        records.save(
            key,
            SplitsRecord(
                dataset=key,
                type=kind,
                manifests=manifests,
                rows=dict(SIZES),
                stratify_by=None,
                group_by=None,
                seed=0,
                data_hash=f"hash-of-{name}",
            ),
        )
    with dg.instance_for_test(temp_dir=str(root)) as instance:
        instance.add_dynamic_partitions(dataset_versions.name, ["corpus@v1", "desk@v1"])
        yield House(
            instance,
            {
                "settings": Settings(home=root, engines=root / "engines", _env_file=None),
                "records": records,
                "store": desk.store,
                "artifacts": Artifacts(root / "artifacts"),
                "catalog": catalog,
                "policy": load_policy(),
                "tracking": Tracking(f"sqlite:///{root}/mlflow.db"),
                "trainer": trainer,
            },
        )


def failure(result: dg.ExecuteInProcessResult, step: str) -> str:
    """What a failed step says, causes included."""
    assert not result.success
    event = next(e for e in result.all_events if e.is_step_failure and e.step_key.startswith(step))
    data = event.step_failure_data
    return json.dumps([data.error.to_string(), str(data.user_failure_data)], ensure_ascii=False)
