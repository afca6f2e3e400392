"""Keeps what was counted in a dictionary in the user's cache folder: counting takes a second, and reading a tenth."""

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from resources.files import write_bytes

Counted = TypeVar("Counted")
_DIGEST = 32


def folder() -> Path:
    """Where it is kept: `LLMOPS_CACHE`, else `llmops` in the cache folder of the user (XDG_CACHE_HOME)."""
    if own := os.environ.get("LLMOPS_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmops"


def kept(name: str, source: Path, rule: str, kind: type[Counted], count: Callable[[], Counted]) -> Counted:
    """What `count` gives of the dictionary file `source`, as it was kept or newly counted, of the dataclass `kind`.

    It is kept under a hash of the source's content and of `rule`, which names how is counted: raise it when that
    changes. What was cut off or changed is counted anew, and where nothing can be written nothing is kept. The format
    is MessagePack with a digest in front; nothing in it is ever run.
    """
    file: Path | None = None
    with contextlib.suppress(OSError, RuntimeError):
        file = folder() / f"{name}-{_identity(source, rule)}.msgpack"
        found = file.read_bytes()
        if hashlib.sha256(found[_DIGEST:]).digest() == found[:_DIGEST]:
            with contextlib.suppress(msgspec.DecodeError):
                return msgspec.msgpack.decode(found[_DIGEST:], type=kind)
    counted = count()
    if file is not None:
        content = msgspec.msgpack.encode(counted)
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, hashlib.sha256(content).digest() + content, durable=False)
    return counted


_SAMPLES, _SAMPLE = 256, 4096


def _identity(source: Path, rule: str) -> str:
    """A hash of a dictionary by its size and by samples from its beginning to its end: to read all of a hundred
    megabytes takes longer than to decode what was counted in them, and no two releases differ in one place alone."""
    digest = hashlib.sha256(rule.encode())
    with source.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "little"))
        for number in range(_SAMPLES + 1):
            file.seek(max(0, size - _SAMPLE) * number // _SAMPLES)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]
