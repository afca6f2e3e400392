"""Turns the rows of a dataset version into token rows, and keeps them as files that planning and training share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from images.chat_rendering import encode_texts
from images.train import sealed
from images.train.chat import Row, Template, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 512
SCHEMA = {"row_id": pl.String, "ids": pl.List(pl.Int32), "trained": pl.List(pl.UInt8)}


def chat_rows(
    tokenizer: "PreTrainedTokenizerBase", template: Template, frame: pl.DataFrame, max_length: int
) -> Iterator[tuple[str, Row]]:
    """(row_id, rendered row) for every conversation in `frame` (row_id, messages, and tools where there are any)."""
    for batch in frame.iter_slices(_BATCH):
        tools = batch["tools"].to_list() if "tools" in batch.columns else None
        rendered = encode(tokenizer, template, batch["messages"].to_list(), max_length, tools)
        yield from zip(batch["row_id"].to_list(), rendered, strict=True)


def text_blocks(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], length: int, seed: int) -> np.ndarray:
    """All of `texts` in a random order, each ended by the end-of-sequence token, cut into blocks.

    int32 of shape (blocks, length). The rest that fills no block is dropped, unless there is no block without it.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    pieces: list[list[int]] = []
    for start in range(0, len(order), _BATCH):
        pieces += encode_texts(tokenizer, [texts[i] for i in order[start : start + _BATCH]])
    end = tokenizer.eos_token_id
    stream = np.fromiter((token for piece in pieces for token in (*piece, end)), dtype=np.int32)
    blocks = len(stream) // length
    if blocks == 0:
        raise ValueError(f"the corpus has {len(stream)} tokens, less than one block of {length}: lower max_seq_len")
    return stream[: blocks * length].reshape(blocks, length)


def save(path: Path, ids: Sequence[str], rows: Sequence[Row]) -> None:
    """Write token rows as Parquet."""
    frame = pl.DataFrame(
        {"row_id": list(ids), "ids": [r.ids for r in rows], "trained": [r.trained for r in rows]}, schema=SCHEMA
    )
    sealed.write_parquet(frame, path)


def save_blocks(path: Path, blocks: np.ndarray) -> None:
    """Write blocks of a corpus as Parquet; every token carries loss."""
    count, length = blocks.shape
    frame = pl.DataFrame(
        {
            "row_id": [f"block-{i}" for i in range(count)],
            "ids": pl.Series(blocks.astype(np.int32)).cast(pl.List(pl.Int32)),
            "trained": pl.Series(np.ones((count, length), dtype=np.uint8)).cast(pl.List(pl.UInt8)),
        },
        schema=SCHEMA,
    )
    sealed.write_parquet(frame, path)


def load(path: Path) -> pl.DataFrame:
    """Token rows as written by `save`: row_id, ids, trained."""
    return sealed.read_parquet(path)


def training_columns(frame: pl.DataFrame) -> dict[str, Any]:
    """`input_ids` and `labels` (-100 where a token carries no loss) of the rows that carry loss at all."""
    frame = frame.filter(pl.col("trained").list.sum() > 0)
    lengths = frame["ids"].list.len().to_numpy()
    flat = frame["ids"].explode(empty_as_null=False).to_numpy()
    trained = frame["trained"].explode(empty_as_null=False).to_numpy().astype(bool)
    labels = np.where(trained, flat, -100).astype(np.int32)
    ends = np.cumsum(lengths)[:-1]
    return {
        "row_id": frame["row_id"].to_list(),
        "input_ids": np.split(flat.astype(np.int64), ends),
        "labels": np.split(labels.astype(np.int64), ends),
        "lengths": lengths,
    }
