"""Plans a pre-training: a tokenizer of the corpus, and its documents in blocks of tokens."""

from pathlib import Path
from typing import Any

import polars as pl

from images.chat_rendering import MEANT
from images.train import rows
from images.train.chat import Row, marked_markdown, template_hash
from images.train.reporter import Reporter
from images.train.tokenizer import train_tokenizer
from llmops_assets.specs.training import TrainJobSpec


def plan_corpus(
    spec: TrainJobSpec, frames: dict[str, pl.DataFrame], folder: Path, reporter: Reporter
) -> dict[str, Any]:
    """Train a tokenizer on `frames` (row_id, text), keep it and the blocks in `folder`, and tell what they are."""
    hyper, texts = spec.hyperparams, frames["train"]["text"].to_list()
    longest = spec.architecture.max_position_embeddings or hyper.max_seq_len
    tokenizer = train_tokenizer(texts, spec.tokenizer.vocab_size, spec.tokenizer.min_frequency, longest)
    if spec.tokenizer.control_tokens == "tokens":
        tokenizer.init_kwargs[MEANT] = True
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
