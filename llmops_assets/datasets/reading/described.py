"""What lies beside data and names its columns: LLaMA-Factory's `dataset_info.json`."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml
from upath import UPath

from llmops_assets.datasets.reading.cards import CARD, LARGEST, front_matter

INFO = "dataset_info.json"

_COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "history": "history", "system": "system",
    "tools": "tools", "chosen": "chosen", "rejected": "rejected", "kto_tag": "kto_tag", "images": "images",
    "videos": "videos", "audios": "audios",
}  # fmt: skip
"""LLaMA-Factory's names of columns, and the fields that they are here."""

_OPTIONAL = ("input", "history", "system", "tools", "images", "videos", "audios")
_ROLES = {
    "user_tag": "user", "assistant_tag": "assistant", "observation_tag": "observation",
    "function_tag": "function_call", "system_tag": "system",
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """The mapping that a description gives to all of the files, None where it gives none; `notes` say where it is from
    and what of it was not followed."""

    mapping: dict[str, str] | None = None
    notes: tuple[str, ...] = ()


def columns_beside(given: Sequence[str | os.PathLike[str]], names: Sequence[str]) -> Described:
    """What the descriptions beside files or in folders (paths or URLs) say of the columns of the files of data `names`.

    A description that cannot be read says nothing, and a note says so.
    """
    folders = dict.fromkeys(str(path if path.is_dir() else path.parent) for path in map(UPath, given))
    notes: list[str] = []
    mappings: dict[str, dict[str, str]] = {}
    for folder in folders:
        info, why = _read(UPath(folder) / INFO, json.loads)
        notes += why
        for file, mapping in _of_llamafactory(info if isinstance(info, dict) else {}).items():
            if (known := next((name for name in names if name == file or name.endswith(f"/{file}")), None)) is not None:
                mappings[known] = mapping
        notes += _read(UPath(folder) / CARD, front_matter)[1]
    if not mappings:
        return Described(None, tuple(notes))
    if len({json.dumps(mapping, sort_keys=True) for mapping in mappings.values()}) > 1 or set(names) - set(mappings):
        files = ", ".join(sorted(mappings)[:5])
        notes.append(f"{INFO} names columns of {files}, not the same of all files: register each by itself to use them")
        return Described(None, tuple(notes))
    mapping = next(iter(mappings.values()))
    if mapping:
        shown = ", ".join(f"{name}={column}" for name, column in mapping.items())
        notes.append(f"columns as {INFO} names them: {shown}")
    return Described(mapping or None, tuple(notes))


def _read(path: UPath, parse: Any) -> tuple[Any, list[str]]:
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None, []
        return parse(path.read_text(encoding="utf-8-sig")), []
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        return None, [f"{path.name} beside the data cannot be read ({str(error).splitlines()[0][:120]})"]


def _of_llamafactory(info: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """A mapping for each local file that LLaMA-Factory's registry describes; other files of that name describe none."""
    found = {}
    for entry in info.values():
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            found[str(PurePosixPath(entry["file_name"]))] = _mapping(entry)
    return found


def _mapping(entry: Mapping[str, Any]) -> dict[str, str]:
    columns = {name: at for name, at in dict(entry.get("columns") or {}).items() if isinstance(at, str) and at}
    if entry.get("formatting") == "sharegpt" or "messages" in columns:
        found = {"conversations": columns.pop("messages", "conversations")}
        tags = {name: tag for name, tag in dict(entry.get("tags") or {}).items() if isinstance(tag, str)}
        for key, field in (("role_tag", "message.role"), ("content_tag", "message.content")):
            if key in tags:
                found[field] = tags[key]
        found |= {f"role.{tags[name]}": role for name, role in _ROLES.items() if name in tags and tags[name] != role}
    elif set(columns) == {"prompt"}:
        # A corpus has nothing but its text.
        found = {"text": columns.pop("prompt")}
    else:
        found = {}
    found |= {_COLUMNS[name]: column for name, column in columns.items() if name in _COLUMNS}
    # What a row may lack is taken where it has it.
    return {n: f"{at}?" if n in _OPTIONAL else at for n, at in found.items() if n != at}
