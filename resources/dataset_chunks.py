"""Where a table is cut into chunks, so that an edit changes few of them, and a chunk as Parquet."""

import io
import zlib

import numpy as np
import polars as pl

from resources.row_upgrade import ADDED

REACH = 256
"""A chunk ends after a row whose hash is the largest of this many rows on either side: 512 rows on average.

Whether a row is one depends on its neighbours alone, so cuts fall into place again right behind an edit; and chunks are
of like size, so an edit rarely hits a large one. `python -m benchmarks.versions` shows the price of other sizes.
"""

LARGEST_CHUNK = 1 << 15
"""Rows after which a chunk ends in any case."""


def row_hashes(frame: pl.DataFrame) -> np.ndarray:
    """A hash of each row's identity, uint32 of shape (rows,).

    CRC-32 and not polars' own hash, because that one may change between polars versions and the cuts would with it.
    """
    if "row_id" in frame.columns:
        keys = frame["row_id"].cast(pl.String)
    else:
        flat = [name for name, dtype in frame.schema.items() if not dtype.is_nested()]
        keys = frame.select(
            pl.concat_str(pl.col(flat).cast(pl.String), separator="\x1f", ignore_nulls=True)
        ).to_series()
    return np.fromiter(map(zlib.crc32, keys.fill_null("").cast(pl.Binary).to_list()), dtype=np.uint32, count=len(keys))


def cuts(hashes: np.ndarray) -> list[int]:
    """Row numbers after which a chunk ends (exclusive ends), of a table that begins where a chunk does.

    Only cuts that no further row could change: the last `REACH` rows have none.
    """
    values = pl.Series(hashes)
    before = values.rolling_max(REACH).shift(1)
    behind = values.reverse().rolling_max(REACH).reverse().shift(-1)
    # Of equal neighbours (many findings of one row) the last one may end a chunk, so that they stay together.
    natural = ((values >= before) & (values > behind)).fill_null(False).arg_true().to_numpy() + 1
    ends: list[int] = []
    start = 0
    for end in [*natural.tolist(), len(hashes)]:
        while end - start > LARGEST_CHUNK + REACH or (end < len(hashes) and end - start > LARGEST_CHUNK):
            start += LARGEST_CHUNK
            ends.append(start)
        if end < len(hashes) and end - start > REACH:
            ends.append(end)
            start = end
    return ends


ZSTD_LEVEL = 2
"""Level 3 takes half as long again and saves up to 5 %."""


def from_parquet(data: bytes, columns: list[str] | None) -> pl.DataFrame:
    """The rows of a chunk, all columns or those named; of those that later versions added, what it has."""
    if columns is not None and not ADDED.keys().isdisjoint(columns):
        stored = pl.read_parquet_schema(io.BytesIO(data))
        columns = [name for name in columns if name not in ADDED or name in stored]
    return pl.read_parquet(io.BytesIO(data), columns=columns)


def to_parquet(frame: pl.DataFrame) -> bytes:
    """A chunk as Parquet: the same bytes for the same rows."""
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(buffer, compression="zstd", compression_level=ZSTD_LEVEL, statistics=False)
    return buffer.getvalue()


def place_of(frame: pl.DataFrame) -> tuple[int, str | None]:
    """Where the rows of a chunk begin: the line of the first, and the file that all of them are from."""
    if not frame.height or frame.schema.get("line") != pl.Int64:
        return 0, None
    one_file = (
        frame.schema.get("file") == pl.String and frame["file"].null_count() == 0 and frame["file"].n_unique() == 1
    )
    return int(frame["line"][0] or 0), frame["file"][0] if one_file else None
