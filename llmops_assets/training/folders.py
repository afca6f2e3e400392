"""Folders of a training that are either whole or not there: sealed with the hash of every file, verified before use."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resources.content import SEAL, changed_files, file_hash, sealed_files
from resources.files import locked, write_text

_KEY = re.compile(r"[0-9a-f]{12}")
"""The key of a training, by which its folder is called."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def seal(folder: Path, facts: Mapping[str, Any] | None = None, of: Path | None = None) -> None:
    """Declare `folder` whole: list its files with their hashes, beside `facts`, in its seal.

    In the folder of a training the seal keeps that training's key and its own name: it was made for nothing else. `of`
    is where it is going to be, where it is not there yet.

    The files reach the disk before the seal does, so a seal that survives a power cut tells the truth. The folder's own
    path is not written down: the home may be moved.
    """
    own = {**(facts or {}), **({"path": "."} if facts and facts.get("path") else {})}
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SEAL:
            files[str(path.relative_to(folder))] = file_hash(path)
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
    write_text(folder / SEAL, json.dumps({"of": _place(of or folder), "files": files, "facts": own}, indent=1))


def _place(folder: Path) -> str | None:
    key = folder.absolute().parent.name
    return f"{key}/{folder.name}" if _KEY.fullmatch(key) else None


def replace(part: Path, folder: Path, facts: Mapping[str, Any]) -> None:
    """Seal `part` and let it take the place of `folder`."""
    seal(part, facts, folder)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def damage(folder: Path, listing: Mapping[str, str] | None = None) -> str | None:
    """What is wrong with a sealed folder, or None when every file is as it was sealed.

    `listing` has the hashes of its files as they are now, where somebody has read them already.
    """
    if not (folder / SEAL).exists():
        return "it was never finished"
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files, of = sealed["files"], sealed.get("of")
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its {SEAL} cannot be read"
    if of is not None and of != _place(folder):
        # As whole as it is, it was made for something else. Earlier releases did not note what for.
        return f"it was made as {of}, and laid here"
    for name, digest in files.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if ((listing or {}).get(name) or file_hash(path)) != digest:
            return f"{name} is not what was written"
    return None


def facts(folder: Path) -> dict[str, Any] | None:
    """What was noted when `folder` was sealed; None when it is not there, unfinished or damaged."""
    return None if damage(folder) is not None else noted(folder)


def facts_of(folder: Path, known: Mapping[str, str]) -> dict[str, Any] | None:
    """As `facts`, of a folder that has the files of the listing `known`, where there is one: one that was exchanged for
    another, as whole as it may be, is none, and loses its seal so that it is made again."""
    found = facts(folder)
    if found is not None and known and changed_files(sealed_files(folder), known):
        (folder / SEAL).unlink()
        return None
    return found


def noted(folder: Path) -> dict[str, Any] | None:
    """What was noted when `folder` was sealed, without a look at its files; None where it has no seal to read.

    Where it has a `path`, that is the folder's of today, wherever it was sealed.
    """
    try:
        found = json.loads((folder / SEAL).read_text(encoding="utf-8"))["facts"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None
    return found | {"path": str(folder)} if "path" in found else found


@contextmanager
def only_one(folder: Path, waiting: Callable[[str], None] = lambda message: None) -> Iterator[None]:
    """Hold `folder` against every other process that works in it by this function; wait for as long as it takes.

    A worker whose run was killed may still be saving a checkpoint when the next run starts, and two cells of the graph
    may ask for the same weights. The lock goes with the process that holds it.
    """
    message = f"waiting for another process that works in {folder}"
    with locked(folder / ".lock", waiting=lambda: waiting(message)):
        yield


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the checkpoint folders in `folder`, the last step first, whole or not."""
    found = [(int(m[1]), path) for path in folder.glob("checkpoint-*") if (m := _CHECKPOINT.fullmatch(path.name))]
    return sorted(found, reverse=True)


def last_checkpoint(folder: Path) -> tuple[int, Path, list[str]] | tuple[None, None, list[str]]:
    """Step and path of the last whole checkpoint, and a warning for each later one that is not."""
    warnings = []
    for step, path in checkpoints(folder):
        fault = damage(path)
        if fault is None:
            return step, path, warnings
        warnings.append(f"checkpoint of step {step} is not used: {fault} ({path})")
    return None, None, warnings
