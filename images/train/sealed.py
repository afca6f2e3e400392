"""Reads and writes the worker's files that hold rows: sealed at rest when the platform hands a key over."""

import io
from functools import cache
from pathlib import Path

import polars as pl

from images.atomic_write import write_atomically
from resources.encryption import Keyring


@cache
def keys() -> Keyring:
    """The keys in this process's environment; none, where nothing is sealed."""
    return Keyring.from_environment()


def read_bytes(path: Path | str) -> bytes:
    """What a file holds, unsealed where it is sealed."""
    return keys().open(Path(path).read_bytes(), path)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file so that it is whole or not there."""
    write_atomically(path, keys().seal(data))


def read_parquet(path: Path | str) -> pl.DataFrame:
    """The table in a Parquet file, unsealed where it is sealed."""
    return pl.read_parquet(io.BytesIO(read_bytes(path)))


def write_parquet(frame: pl.DataFrame, path: Path | str) -> None:
    """Write a table as one Parquet file, sealed where there are keys, so that it is whole or not there."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())
