"""Writes files of the worker so that a reader sees the old content or the new, never a part."""

import os
from pathlib import Path


def write_atomically(path: Path | str, data: bytes) -> None:
    """Write `data` to `path`, which is on a local file system; not flushed, for it says only what can be said again."""
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
