"""Reads every byte below some folders, however packed, and tells where a person's data is left."""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import polars as pl
import zstandard

from llmops_assets.erasure.search import Wanted
from resources.encryption import NO_KEYS, EncryptionError, Keyring

BLOCK = 8 << 20
OVERLAP = 4096
"""Bytes of a block that are read again with the next: nothing that is looked for is longer."""

WEIGHTS = (".safetensors",)
"""Files of numbers alone; what a model remembers is no text in them, and nothing here claims to remove it."""


@dataclass(frozen=True)
class Leftover:
    """A file that still holds what was to be erased, or that could not be read, and why it is named."""

    path: str
    reason: str


def residual_scan(roots: Iterable[Path], wanted: Wanted, keys: Keyring = NO_KEYS) -> tuple[list[Leftover], int]:
    """Files that hold what is looked for, or that could not be read; and how many were read."""
    left, count = [], 0
    for path in _files(roots):
        if path.suffix in WEIGHTS:
            continue
        count += 1
        try:
            if _holds(path, wanted, keys):
                left.append(Leftover(str(path), "holds it"))
        except FileNotFoundError:
            continue
        except (
            OSError,
            EOFError,
            EncryptionError,
            zlib.error,
            zstandard.ZstdError,
            pl.exceptions.PolarsError,
        ) as error:
            left.append(Leftover(str(path), f"cannot be read: {error}"))
    return left, count


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    given: set[Path] = set()
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink() and path not in given:
                given.add(path)
                yield path


def _holds(path: Path, wanted: Wanted, keys: Keyring) -> bool:
    with keys.reader(path.open("rb"), path) as plain:
        if path.suffix == ".parquet":
            return bool(wanted.in_frame(pl.read_parquet(plain.read())).any())
        rest, stream = b"", _unpacked(path, plain)
        while block := stream.read(BLOCK):
            if wanted.in_text((rest + block).decode("utf-8", "ignore")):
                return True
            rest = block[-OVERLAP:]
    return False


def _unpacked(path: Path, plain: BinaryIO) -> BinaryIO:
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=plain)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
    return plain


def blank_lines(path: Path, wanted: Wanted) -> int:
    """Overwrite the lines of a log that hold what is looked for, in place and in the same length: it may be open."""
    blanked = 0
    with open(path, "r+b") as file:
        while True:
            start = file.tell()
            line = file.readline()
            if not line:
                return blanked
            if wanted.in_text(line.decode("utf-8", "ignore")):
                end = file.tell()
                file.seek(start)
                file.write(b"#" * (len(line) - line.endswith(b"\n")))
                file.seek(end)
                blanked += 1
