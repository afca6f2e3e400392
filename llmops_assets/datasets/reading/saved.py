"""Folders that `save_to_disk` of the datasets library wrote: which files are the rows, and what of them is missing."""

import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

STATE, SPLITS = "state.json", "dataset_dict.json"
_LARGEST = 16 * 2**20


def saved(files: Iterable[tuple[str, Any]]) -> tuple[dict[str, str], list[str]]:
    """The Arrow files of saved datasets that are none of their rows, with the reason, and what is missing of them.

    A folder with a `state.json` names its files of rows there: others beside them are what `map` and `filter` left, the
    same rows once more. A `dataset_dict.json` names the splits, each a folder.
    """
    paths = dict(files)
    left_out: dict[str, str] = {}
    notes: list[str] = []
    for name, path in paths.items():
        at = PurePosixPath(name)
        said = _read(path) if at.name in (STATE, SPLITS) else None
        if said is None:
            continue
        if at.name == STATE:
            named = [file.get("filename") for file in _list(said.get("_data_files")) if isinstance(file, dict)]
            here = {PurePosixPath(other).name: other for other in paths if PurePosixPath(other).parent == at.parent}
            if named:
                others = [file for file in here if file.endswith(".arrow") and file not in named]
                left_out |= {
                    here[file]: f"not among the rows that {name} names: left by map or filter" for file in others
                }
            notes += _missing(name, [str(file) for file in named if file not in here])
        else:
            inside = {parent for other in paths for parent in PurePosixPath(other).parents}
            splits = [split for split in _list(said.get("splits")) if isinstance(split, str)]
            notes += _missing(name, [split for split in splits if at.parent / split not in inside])
    return left_out, notes


def _missing(name: str, what: Sequence[str]) -> list[str]:
    if not what:
        return []
    more = f" and {len(what) - 3} more" if len(what) > 3 else ""
    return [f"{name} names {', '.join(what[:3])}{more}, and it is not here: rows of the saved dataset are missing"]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read(path: Any) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        return found if isinstance(found, dict) else None
    except (OSError, ValueError, RecursionError):
        return None
