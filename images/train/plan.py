"""Task `plan`: renders the actual rows as they will be trained, and reports what is known before a GPU is spent.

Job: spec (TrainJobSpec as JSON), base ({path} or null), store (root of the dataset store), manifests (manifest id by
split), plan_dir, and optionally extra_rows (Parquet of more training rows). Leaves train.parquet and validation.parquet
there, and the tokenizer of a model made from nothing.
"""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from images.train import sealed
from images.train.reporter import Reporter
from images.train.trained_modules import trained_modules
from llmops_assets.records.jobs import PlanJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.inspection import require_whole
from resources.dataset_store import DatasetStore
from resources.encryption import Keyring
from resources.row_upgrade import upgraded

CONTENT: dict[str, tuple[str, ...]] = {
    "PRETRAIN": ("text",),
    "SFT": ("messages", "tools"),
    "RLHF": ("prompt", "chosen", "rejected", "tools"),
    "EMBEDDING": ("anchor", "positives", "negatives", "score"),
    "RAG_TUNING": ("question", "answer", "positives", "negatives"),
}
"""The columns that a job type trains on."""


def columns_of(spec: TrainJobSpec) -> tuple[str, ...]:
    """The columns that a job trains on."""
    by_kto = spec.rlhf is not None and spec.rlhf.algorithm == "kto"
    return ("prompt", "completion", "tools", "label") if by_kto else CONTENT[spec.job_type]


def run(job: PlanJob, reporter: Reporter) -> dict[str, Any]:
    """The facts of a plan; the one that is there is kept, where it is whole."""
    spec = job.spec
    store = DatasetStore(job.store, Keyring.from_environment())
    folder = Path(job.plan_dir)
    with folders.only_one(folder.parent, reporter.log.info):
        facts = folders.facts(folder)
        if facts is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            facts = _plan(job, spec, store, folder, reporter)
            folders.seal(folder, facts)
    return facts


def _plan(job: PlanJob, spec: TrainJobSpec, store: DatasetStore, folder: Path, reporter: Reporter) -> dict[str, Any]:
    for model in (job.base, job.reward, job.retriever):
        if model is not None:
            # A folder of weights that are not what its config says loads without a word, and trains.
            require_whole(Path(model.path))
    columns = ["row_id", *columns_of(spec)]
    frames = {split: store.read(job.manifests[split], columns) for split in ("train", "validation")}
    if job.extra_rows:
        extra = upgraded(sealed.read_parquet(job.extra_rows), columns).select(columns)
        frames["train"] = pl.concat([frames["train"], extra], how="vertical_relaxed")
    if not frames["train"].height:
        raise ValueError("the train split has no rows: look at clean_dataset for what was dropped and why")
    if spec.job_type == "PRETRAIN":
        from images.train.plan_corpus import plan_corpus

        return plan_corpus(spec, frames, folder, reporter)
    base = Path(job.base.path)
    # Before any row is rendered: a name that no module has costs no more than a look at the headers.
    trained = [line.model_dump() for line in trained_modules(spec, base)]
    return {**_planned(job, spec, store, frames, base, folder, reporter), "trained": trained}


def _planned(
    job: PlanJob,
    spec: TrainJobSpec,
    store: DatasetStore,
    frames: dict[str, pl.DataFrame],
    base: Path,
    folder: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    if spec.job_type == "RLHF":
        from images.train.plan_pairs import plan_pairs

        return plan_pairs(spec, frames, base, folder, reporter, job.template_date)
    if spec.job_type == "EMBEDDING":
        from images.train.plan_encoder import plan_encoder

        return plan_encoder(spec, frames, base, folder, reporter)
    if spec.job_type == "RAG_TUNING":
        from images.train.plan_rag import plan_rag, save_passages

        every = [store.read(manifest, ["positives", "negatives"]) for manifest in job.manifests.values()]
        save_passages(folder / "passages.parquet", every)
        return plan_rag(spec, frames, base, Path(job.retriever.path), folder, reporter, job.template_date)
    from images.train.plan_chat import plan_chat

    return plan_chat(spec, frames, base, folder, reporter, job.template_date)
