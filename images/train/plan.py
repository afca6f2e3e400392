"""Task `plan`: renders the actual rows as they will be trained, and reports what is known before a GPU is spent.

Job: spec (TrainJobSpec as JSON), base ({path} or null), store (root of the dataset store), manifests (manifest id by
split), plan_dir, and optionally extra_rows (Parquet of more training rows). Leaves train.parquet and validation.parquet
there, and the tokenizer of a model made from nothing.
"""

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from images.train import rows
from images.train.chat import Row, Template, choose_template, keeps_prefixes, marked_markdown
from images.train.reporter import Reporter
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources.dataset_store import DatasetStore
from resources.encryption import Keyring

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTENT: dict[str, tuple[str, ...]] = {
    "PRETRAIN": ("text",),
    "SFT": ("messages",),
    "RLHF": ("prompt", "chosen", "rejected"),
    "EMBEDDING": ("anchor", "positives", "negatives"),
    "RAG_TUNING": ("question", "answer", "positives", "negatives"),
}
"""The columns that a job type trains on."""

PREFIX_SAMPLE = 64
"""Conversations on which the template is compared, turn by turn, with what a server renders."""


def template_hash(template: str | None) -> str | None:
    """12 hex digits of a chat template's text."""
    return hashlib.sha256(template.encode()).hexdigest()[:12] if template else None


def run(job: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    spec = TrainJobSpec.model_validate(job["spec"])
    store = DatasetStore(job["store"], Keyring.from_environment())
    folder = Path(job["plan_dir"])
    with folders.only_one(folder.parent, reporter.log.info):
        facts = folders.facts(folder)
        if facts is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            facts = _plan(job, spec, store, folder, reporter)
            folders.seal(folder, facts)
    return facts


def _plan(
    job: dict[str, Any], spec: TrainJobSpec, store: DatasetStore, folder: Path, reporter: Reporter
) -> dict[str, Any]:
    columns = ["row_id", *CONTENT[spec.job_type]]
    frames = {split: store.read(job["manifests"][split], columns) for split in ("train", "validation")}
    if job.get("extra_rows"):
        frames["train"] = pl.concat([frames["train"], pl.read_parquet(job["extra_rows"])], how="vertical_relaxed")
    if not frames["train"].height:
        raise ValueError("the train split has no rows: look at clean_dataset for what was dropped and why")
    if spec.job_type == "PRETRAIN":
        return _plan_corpus(spec, frames, folder, reporter)
    base = Path(job["base"]["path"])
    if spec.job_type == "RLHF":
        from images.train.plan_pairs import plan_pairs

        return plan_pairs(spec, frames, base, folder, reporter)
    if spec.job_type == "EMBEDDING":
        from images.train.plan_encoder import plan_encoder

        return plan_encoder(spec, frames, base, folder, reporter)
    if spec.job_type == "RAG_TUNING":
        from images.train.plan_rag import plan_rag, save_passages

        every = [store.read(manifest, ["positives", "negatives"]) for manifest in job["manifests"].values()]
        save_passages(folder / "passages.parquet", every)
        return plan_rag(spec, frames, base, Path(job["retriever"]["path"]), folder, reporter)
    return plan_chat(spec, frames, base, folder, reporter)


def _plan_corpus(
    spec: TrainJobSpec, frames: "dict[str, pl.DataFrame]", folder: Path, reporter: Reporter
) -> dict[str, Any]:
    from images.train.tokenizer import train_tokenizer

    hyper, texts = spec.hyperparams, frames["train"]["text"].to_list()
    longest = spec.architecture.max_position_embeddings or hyper.max_seq_len
    tokenizer = train_tokenizer(texts, spec.tokenizer.vocab_size, spec.tokenizer.min_frequency, longest)
    tokenizer.save_pretrained(folder / "tokenizer")
    reporter.log.info("trained a tokenizer of %d entries on %d documents", len(tokenizer), len(texts))
    blocks = {}
    for split, frame in frames.items():
        if frame.height:
            blocks[split] = rows.text_blocks(tokenizer, frame["text"].to_list(), hyper.max_seq_len, hyper.seed)
            rows.save_blocks(folder / f"{split}.parquet", blocks[split])
    first = blocks["train"][0].tolist()
    example = Row(first, [1] * len(first), False, False, 0, None)
    tokens = int(blocks["train"].size)
    return {
        "rows": {split: len(found) for split, found in blocks.items()},
        "tokens": tokens,
        "trainable_tokens": tokens,
        "longest_row": hyper.max_seq_len,
        "packing_efficiency": 1.0,
        "rows_without_trainable_tokens": 0,
        "truncated_rows": 0,
        "cut_answers": 0,
        "dropped_rows": 0,
        "double_bos_rows": 0,
        # Every document ends with it, so the model learns it everywhere.
        "stop_token": tokenizer.eos_token,
        "stop_token_trained": True,
        "prefix_preserving": True,
        "chat_template_hash": template_hash(tokenizer.chat_template),
        "template_origin": "chatml",
        "vocabulary": len(tokenizer),
        "example": marked_markdown(tokenizer, example, 120),
        "failures": {},
    }


def plan_chat(
    spec: TrainJobSpec, frames: "dict[str, pl.DataFrame]", base: Path, folder: Path, reporter: Reporter
) -> dict[str, Any]:
    """Render the conversations of `frames` (row_id, messages), keep them in `folder`, and tell what they are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    template = choose_template(tokenizer)
    reporter.log.info("chat template: %s", template.origin)
    rendered: dict[str, tuple[list[str], list[Row]]] = {}
    dropped: dict[str, list[str]] = {"train": []}
    for split, frame in frames.items():
        pairs = list(rows.chat_rows(tokenizer, template, frame, spec.hyperparams.max_seq_len))
        if spec.hyperparams.overlong == "drop":
            dropped[split] = [row_id for row_id, row in pairs if row.truncated]
            pairs = [(row_id, row) for row_id, row in pairs if not row.truncated]
            reporter.log.info("left out %d rows of %s that are too long", len(dropped[split]), split)
        rendered[split] = ([row_id for row_id, _ in pairs], [row for _, row in pairs])
        if pairs:
            rows.save(folder / f"{split}.parquet", *rendered[split])
        reporter.log.info("rendered %d rows of %s", len(pairs), split)
    ids, found = rendered["train"]
    if not found:
        raise ValueError(
            f"all {len(dropped['train'])} rows are longer than max_seq_len {spec.hyperparams.max_seq_len}: raise it"
        )
    tokenizer.chat_template = template.serving
    tokenizer.save_pretrained(folder / "tokenizer")
    facts = _facts(tokenizer, template, frames["train"].filter(pl.col("row_id").is_in(ids)), ids, found)
    facts["rows"] = {split: len(pair[0]) for split, pair in rendered.items() if pair[0]}
    facts["dropped_rows"] = len(dropped["train"])
    if dropped["train"]:
        facts["failures"]["dropped"] = dropped["train"][:10]
    return facts


def _facts(
    tokenizer: "PreTrainedTokenizerBase", template: Template, frame: "pl.DataFrame", ids: list[str], found: list[Row]
) -> dict[str, Any]:
    """What is known of the rendered rows; `failures` lists up to ten row ids for each thing that is wrong."""
    stops = Counter(row.stop for row in found if row.stop is not None)
    stop = stops.most_common(1)[0][0] if stops else None
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    unstopped = [i for i, row in zip(ids, found, strict=True) if row.stop is not None and row.stop not in special]
    sample = frame["messages"].head(PREFIX_SAMPLE).to_list()
    broken = [i for i, m in zip(ids, sample, strict=False) if not keeps_prefixes(tokenizer, template, m)]
    wrong = {
        "no_trainable_tokens": [i for i, row in zip(ids, found, strict=True) if not any(row.trained)],
        "cut_answers": [i for i, row in zip(ids, found, strict=True) if row.cut_answer],
        "double_bos": [i for i, row in zip(ids, found, strict=True) if row.leading_bos > 1],
        "stop_token_untrained": unstopped,
        "prefix_changed": broken,
    }
    longest = max(len(row.ids) for row in found)
    tokens = sum(len(row.ids) for row in found)
    shown = next((row for row in found if any(row.trained)), found[0])
    return {
        "tokens": tokens,
        "trainable_tokens": sum(sum(row.trained) for row in found),
        "longest_row": longest,
        "packing_efficiency": tokens / (len(found) * longest),
        "rows_without_trainable_tokens": len(wrong["no_trainable_tokens"]),
        "truncated_rows": sum(row.truncated for row in found),
        "cut_answers": len(wrong["cut_answers"]),
        "double_bos_rows": len(wrong["double_bos"]),
        "stop_token": tokenizer.convert_ids_to_tokens(stop) if stop is not None else None,
        "stop_token_trained": stop is not None and not unstopped,
        "prefix_preserving": not broken,
        "chat_template_hash": template_hash(template.serving),
        "template_origin": template.origin,
        "vocabulary": len(tokenizer),
        "example": marked_markdown(tokenizer, shown),
        "failures": {kind: row_ids[:10] for kind, row_ids in wrong.items() if row_ids},
    }
