"""Reads which files of a folder are data from the card of a hub's dataset: its configurations and their splits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

CARD = "README.md"
LARGEST = 4 * 2**20
"""Bytes of a description; a larger one is something else."""
MANY = 6
_ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class SeveralConfigurations(ValueError):
    """A card has several datasets, and does not say which of them is meant."""


@dataclass(frozen=True)
class Chosen:
    """The files of the configuration that a card means, by split; `notes` say what of it was not followed.

    `files` is None where the card says nothing of the files that are here.
    """

    name: str = ""
    files: list[str] | None = None
    splits: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def front_matter(text: str) -> Any:
    """The YAML between the first two lines of dashes of a card; None where there is none. Raises yaml.YAMLError."""
    if not text.startswith("---"):
        return None
    head, dashes, _ = text[3:].partition("\n---")
    return yaml.safe_load(head) if dashes else None


def chosen(text: str, names: Sequence[str]) -> Chosen:
    """What a card says of the files of data `names` (relative to its folder), as the `datasets` library reads it.

    Of several configurations the one that is marked or called default. Raises SeveralConfigurations where none is, and
    their files differ.
    """
    try:
        card = front_matter(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        # Said by whoever looks for the names of columns.
        return Chosen()
    configs = card.get("configs") if isinstance(card, dict) else None
    given = [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []
    read = [(_of(one, names), one.get("default") is True) for one in given]
    here = [(one, default) for one, default in read if one.files]
    if not here:
        return read[0][0] if read else Chosen()
    meant = [one for one, default in here if default or one.name == "default"] or [one for one, _ in here]
    if len(meant) > 1 and any(one.files != meant[0].files for one in meant):
        shown = "; ".join(
            f"{one.name}: {', '.join((one.files or ['no file that is here'])[:3])}" for one, _ in read[:MANY]
        )
        raise SeveralConfigurations(
            f"its data card ({CARD}) has {len(read)} configurations, which are datasets of their own, and none is the "
            f"default ({shown})"
        )
    found = meant[0]
    others = [one.name for one, _ in read if one is not found and one.files != found.files]
    if found.files and others:
        note = (
            f"of the data card's configurations {found.name} is read, its default; not read: {', '.join(others[:MANY])}"
        )
        return Chosen(found.name, found.files, found.splits, (*found.notes, note))
    return found


def _of(config: Mapping[str, Any], names: Sequence[str]) -> Chosen:
    name = str(config.get("config_name") or "default")
    folder = str(config.get("data_dir") or "").strip("/")
    patterns = list(_patterns(config.get("data_files")))
    if not patterns and folder:
        patterns = [("", "**")]
    splits: dict[str, list[str]] = {}
    missing, notes = [], []
    for split, pattern in patterns:
        fitting = _fitting(f"{folder}/{pattern}" if folder else pattern, names)
        if _ELSEWHERE.match(pattern) or not fitting:
            missing.append(pattern)
        known = splits.setdefault(split, [])
        known += [one for one in fitting if one not in known]
    files = list(dict.fromkeys(one for fitting in splits.values() for one in fitting))
    if missing:
        rest = "all files are read" if not files else "what is there is read"
        notes.append(f"the data card's {', '.join(missing[:MANY])} is not here: {rest}")
    named = {split: files for split, files in splits.items() if split and files}
    return Chosen(name, sorted(files) if files else None, named, tuple(notes))


def _patterns(data_files: Any) -> list[tuple[str, str]]:
    """(split, pattern) of `data_files`: a pattern, a list of them, a mapping by split, or entries of split and path."""
    if isinstance(data_files, str):
        return [("", data_files)]
    if isinstance(data_files, Mapping):
        return [(str(split), p) for split, paths in data_files.items() for _, p in _patterns(paths)]
    found = []
    for one in data_files if isinstance(data_files, list) else []:
        if isinstance(one, Mapping):
            found += [(str(one.get("split") or ""), pattern) for _, pattern in _patterns(one.get("path"))]
        else:
            found += _patterns(one)
    return found


def _fitting(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a pattern fits: `*` within a folder, `**` across folders; the name of a folder fits all in it."""
    plain = pattern.strip().removeprefix("./").strip("/")
    regex = re.compile(_regex(plain))
    return [name for name in names if regex.fullmatch(name) or name.startswith(f"{plain}/")]


def _regex(pattern: str) -> str:
    parts, at = [], 0
    for match in re.finditer(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]|\{[^{}/]*\}", pattern):
        parts.append(re.escape(pattern[at : match.start()]))
        found, at = match.group(), match.end()
        if found.startswith("["):
            parts.append(
                f"[{'^' if found[1] == '!' else ''}{re.escape(found.strip('[]!')).replace(re.escape('-'), '-')}]"
            )
        elif found.startswith("{"):
            parts.append(f"(?:{'|'.join(map(re.escape, found[1:-1].split(',')))})")
        else:
            parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}[found])
    return "".join([*parts, re.escape(pattern[at:])])
