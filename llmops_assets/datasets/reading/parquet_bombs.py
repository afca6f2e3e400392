"""Columnar files that expand beyond reason: one value, written once in a dictionary, may be meant a million times."""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from llmops_assets.datasets.reading.opening import LARGEST_EXPANSION, SMALLEST_BOMB
from llmops_assets.datasets.reading.raw import Limits, RowFault

_BATCH_BYTES = 256 * 2**20
"""A batch whose text cannot be more than this is not looked at more closely."""


def open_parquet(stream: BinaryIO) -> pyarrow.parquet.ParquetFile:
    """A Parquet file whose texts are read as dictionaries where their own bytes do not bound what they expand to."""
    file = pyarrow.parquet.ParquetFile(stream)
    suspicious = _unbounded(file.metadata)
    if not suspicious:
        return file
    stream.seek(0)
    return pyarrow.parquet.ParquetFile(stream, read_dictionary=suspicious)


def widest(size: int, limits: Limits) -> int:
    """Bytes that a file of `size` may expand to."""
    return min(limits.file, max(SMALLEST_BOMB, size * LARGEST_EXPANSION))


def too_large(limit: int) -> RowFault:
    """The fault of a file that expands to more than it may."""
    return RowFault("", f"the file expands to more than {limit:,} bytes: split it, or write it as JSON lines")


def bounded(batches: Iterable[pa.RecordBatch], size: int, limits: Limits) -> Iterator[pa.RecordBatch]:
    """The batches of a file of `size` bytes; raises RowFault before one that expands too far is made into texts."""
    limit, read = widest(size, limits), 0
    for batch in batches:
        read += sum(_expanded(column) for column in batch.columns)
        if read > limit:
            raise too_large(limit)
        yield batch


def _unbounded(metadata: Any, rows: int = 10_000) -> list[str]:
    """Paths of text columns that a dictionary may expand to more than a batch may hold."""
    found: set[str] = set()
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            is_text = column.physical_type == "BYTE_ARRAY"
            by_dictionary = any("DICTIONARY" in encoding for encoding in column.encodings)
            values = min(max(rows, column.num_values // max(1, row_group.num_rows) * rows), column.num_values)
            if is_text and by_dictionary and column.total_uncompressed_size * values > _BATCH_BYTES:
                found.add(column.path_in_schema)
    return sorted(found)


def _expanded(array: pa.Array) -> int:
    """Bytes of an array once each of its values stands by itself."""
    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(_expanded(field) for field in array.flatten())
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_map(array.type):
        inner = array.flatten() if not pa.types.is_map(array.type) else array.items
        return _expanded(inner)
    return array.nbytes
