"""Writes the rows of a version to a file of the user's: JSON lines that can be registered again, or Parquet."""

import gzip
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, BinaryIO

import msgspec
import polars as pl
import zstandard

from llmops_assets.datasets import schema
from llmops_assets.records.conversation import TOOLS, as_written
from resources import files

FORMATS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_LABELS = ("category", "source", "quality_score")


def checkout(batches: Iterable[pl.DataFrame], dataset_type: str, target: Path) -> int:
    """Write rows to `target`, in the format of its suffix; how many. The file is whole or as it was before.

    JSON lines hold the content of a row and its metadata: registered again they make the same rows. Parquet has every
    column of the canonical table. Raises ValueError for another suffix.
    """
    suffix = next((s for s in sorted(FORMATS, key=len, reverse=True) if target.name.endswith(s)), None)
    if suffix is None:
        raise ValueError(f"{target} should end in one of {', '.join(FORMATS)}: the suffix says the format")
    with files.replacing(target) as stream:
        return _parquet(batches, stream) if suffix == ".parquet" else _jsonl(batches, dataset_type, stream, suffix)


def _parquet(batches: Iterable[pl.DataFrame], stream: BinaryIO) -> int:
    import pyarrow.parquet

    rows, writer = 0, None
    try:
        for batch in batches:
            table = batch.to_arrow()
            writer = writer or pyarrow.parquet.ParquetWriter(stream, table.schema, compression="zstd")
            writer.write_table(table)
            rows += batch.height
    finally:
        if writer is not None:
            writer.close()
    return rows


def _jsonl(batches: Iterable[pl.DataFrame], dataset_type: str, stream: BinaryIO, suffix: str) -> int:
    rows = 0
    with _packed(stream, suffix) as file:
        for batch in batches:
            for row in records(batch, dataset_type):
                file.write(msgspec.json.encode(row))
                file.write(b"\n")
            rows += batch.height
    return rows


def _packed(stream: BinaryIO, suffix: str) -> AbstractContextManager[IO[bytes]]:
    """What packs into a stream that stays open."""
    if suffix.endswith(".gz"):
        return gzip.open(stream, "wb")
    if suffix.endswith(".zst"):
        return zstandard.ZstdCompressor().stream_writer(stream, closefd=False)
    return nullcontext(stream)


def records(batch: pl.DataFrame, dataset_type: str) -> Iterator[dict[str, Any]]:
    """Rows as users write them: their content, and `metadata` with what is known of them beside it."""
    content = [*schema.CONTENT[dataset_type], *schema.JUDGED.get(dataset_type, {})]
    for row in batch.select(*content, *_LABELS, "extra").iter_rows(named=True):
        metadata = {name: row[name] for name in _LABELS if row[name] is not None}
        metadata |= msgspec.json.decode(row["extra"])
        yield written(row, dataset_type) | ({"metadata": metadata} if metadata else {})


def written(row: Mapping[str, Any], dataset_type: str) -> dict[str, Any]:
    """The content of a row as users write it: without fields that are empty, calls and tools as objects."""
    found = {}
    for name, dtype in schema.CONTENT[dataset_type].items():
        if dtype == schema.MESSAGES:
            found[name], tools = as_written(row[name], row.get(TOOLS))
        elif name == TOOLS:
            found |= {TOOLS: tools} if tools else {}
        else:
            found[name] = row[name]
    return found | {name: row[name] for name in schema.JUDGED.get(dataset_type, {}) if row[name] is not None}
