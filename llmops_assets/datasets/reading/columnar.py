"""Reads the rows of columnar files, Parquet and Arrow (what `save_to_disk` of the datasets library writes)."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from llmops_assets.datasets.reading.accounting import ROWS, Account
from llmops_assets.datasets.reading.raw import Limits, Raw, RowFault

BATCH_ROWS = 10_000
"""Rows that are decoded at a time."""

_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What a damaged file raises: names that are no text and times that no calendar has are found only when looked at."""


def read_parquet(stream: BinaryIO, limits: Limits, account: Account) -> Iterator[Raw]:
    """Every row of a Parquet file, in a stream that can be read from any place."""
    from llmops_assets.datasets.reading.parquet_bombs import bounded, open_parquet

    size = _size(stream)
    try:
        file = open_parquet(stream)
        account.unit, account.total = ROWS, file.metadata.num_rows
        yield from _rows(bounded(file.iter_batches(batch_size=BATCH_ROWS), size, limits), file.schema_arrow, account)
    except _BROKEN as error:
        account.unit = ROWS
        account.without_line += 1
        yield Raw(1, None, RowFault("", f"not a Parquet file: {error}"))


def read_arrow(stream: BinaryIO, limits: Limits, account: Account) -> Iterator[Raw]:
    """Every row of an Arrow stream or file (Feather), in a stream that can be read from any place.

    The buffers of a file from elsewhere are validated before they are looked into: offsets that lead out of them would
    read memory that is not theirs.
    """
    from llmops_assets.datasets.reading.arrow_stream import walk
    from llmops_assets.datasets.reading.parquet_bombs import bounded, too_large, widest

    size = _size(stream)
    account.unit = ROWS
    walked = walk(stream)
    if walked.expanded > widest(size, limits):
        raise too_large(widest(size, limits))
    stream.seek(walked.begins)
    try:
        with pa.ipc.open_stream(stream) as reader:
            account.total = walked.rows
            yield from _rows(bounded(_validated(reader), size, limits), reader.schema, account)
    except _BROKEN as error:
        account.without_line += 1
        yield Raw(1, None, RowFault("", f"not an Arrow file: {str(error)[:200]}"))


def _size(stream: BinaryIO) -> int:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    return size


def _validated(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        batch.validate(full=True)
        for start in range(0, batch.num_rows, BATCH_ROWS):
            yield batch.slice(start, BATCH_ROWS)


def _rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema, account: Account) -> Iterator[Raw]:
    """The rows of the batches of one table, numbered from 1; where it breaks off, those before stand."""
    row = 0
    try:
        names = _class_names(schema.metadata or {})
        if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
            raise RowFault("", f"the table has several columns of one name ({', '.join(twice[:5])}): keep one of them")
        for batch in batches:
            for value in batch.to_pylist():
                row += 1
                for column, known in names.items():
                    if isinstance(number := value.get(column), int) and 0 <= number < len(known):
                        value[column] = known[number]
                for column in _TREES & value.keys():
                    value[column] = _without_nulls(value[column])
                yield Raw(row, value)
    except (RowFault, *_BROKEN):
        account.total = row
        raise


_TREES = {"tools", "functions", "messages", "conversations", "prompt", "completion", "chosen", "rejected"}


def _without_nulls(value: Any) -> Any:
    """A tree of lists and objects without fields that are null.

    In a columnar file every object of a column has the fields of all others: the parameters of one tool, null, in
    every other tool, and the arguments of one call in every other call.
    """
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Names of the classes by column, as the `datasets` library writes them into a file's metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
