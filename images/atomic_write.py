"""Writes files of the worker so that a reader sees the old content or the new, never a part."""

from pathlib import Path

from resources import files


def write_atomically(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, which is on a local file system; not flushed, for it says only what can be said again."""
    files.write_bytes(path, data, durable=False)
