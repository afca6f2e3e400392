"""Tells data from what lies beside it in a folder from a hub: cards, indices, licences, hidden files, pointers."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from llmops_assets.datasets.reading import cards
from llmops_assets.datasets.reading.opening import LFS_POINTER, LFS_REASON, SUFFIXES
from llmops_assets.datasets.reading.saved import saved

File = tuple[str, Any]
"""Name relative to the folder, and the path to read."""

_DESCRIBING = {
    "dataset_infos.json": "a description of the data",
    "dataset_info.json": "a description of the data",
    "dataset_dict.json": "a description of the data",
    "croissant.json": "a description of the data",
    "state.json": "the state of a saved dataset",
    "config.json": "a model's configuration",
    "generation_config.json": "a model's configuration",
    "preprocessor_config.json": "a model's configuration",
    "adapter_config.json": "a model's configuration",
    "tokenizer.json": "a tokenizer",
    "tokenizer_config.json": "a tokenizer",
    "special_tokens_map.json": "a tokenizer",
    "added_tokens.json": "a tokenizer",
    "vocab.json": "a tokenizer",
    "vocab.txt": "a tokenizer",
    "merges.txt": "a tokenizer",
    "requirements.txt": "a list of packages",
    "robots.txt": "for crawlers",
    "thumbs.db": "left by a file browser",
    "desktop.ini": "left by a file browser",
}
_STEMS = {
    "readme": "a data card",
    "license": "a licence",
    "licence": "a licence",
    "copying": "a licence",
    "changelog": "a list of changes",
    "contributing": "about contributing",
    "code_of_conduct": "about contributing",
    "citation": "how to cite",
    "authors": "who wrote it",
}
_PREFIXES = ("readme", "license", "licence", "copying")
"""What may be followed by a language or a name: README_ko.md, LICENSE-APACHE."""

_ENDINGS = (
    (r"\.index(\.json)?$", "an index"),
    (r"\.(lock|incomplete|part|crdownload|tmp)$", "left by a download"),
    (r"\.(sha256|sha1|md5|asc|sig|etag)$", "a checksum"),
    (r"\.(png|jpe?g|gif|webp|svg|bmp|ico|tiff?|heic)$", "an image"),
    (r"\.(mp3|wav|flac|ogg|m4a|mp4|avi|mov|webm)$", "sound or film"),
    (r"\.(safetensors|bin|pt|pth|ckpt|onnx|gguf|h5|msgpack|npy|npz|pkl|pickle)$", "weights or arrays, not rows"),
    (r"\.(py|pyc|ipynb|sh|js|css|html?|ya?ml|toml|cfg|ini|cff|bib|rst|log)$", "code or configuration, not rows"),
)
_HIDDEN_FOLDERS = {"__macosx": "left by macOS", "__pycache__": "compiled code"}

SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "valid": "validation", "validation": "validation", "val": "validation", "dev": "validation", "eval": "validation",
}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """What is in a folder: the files of data, what was left out and why, and the files of each split by their names."""

    data: list[File]
    left_out: dict[str, str] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """What a person should know of it, a sentence each."""
        found = []
        if self.left_out:
            shown = [f"{name} ({reason})" for name, reason in list(self.left_out.items())[:8]]
            more = f" and {len(self.left_out) - 8} more" if len(self.left_out) > 8 else ""
            found.append(f"left out, no data: {', '.join(shown)}{more}")
        if len(self.splits) > 1:
            names = "; ".join(f"{split}: {', '.join(files[:3])}" for split, files in self.splits.items())
            found.append(
                f"the files are splits ({names}): all of them become one version, which the platform splits by itself. "
                "To keep its test rows apart register the test file as an eval_suite of its own"
            )
        return [*found, *self.notes]


def not_data(name: str, documents: bool = False) -> str | None:
    """Why a file is no data by its name, relative to the folder that was given; None for what may be.

    `documents`: the files are texts that a model writes about, for which a README is one like any other.
    """
    path = PurePosixPath(name.lower())
    for part in path.parts:
        if part in _HIDDEN_FOLDERS:
            return _HIDDEN_FOLDERS[part]
        if part.startswith("."):
            return "hidden"
    whole = path.name
    while PurePosixPath(whole).suffix in (".gz", ".zst") and PurePosixPath(whole).stem.count("."):
        whole = PurePosixPath(whole).stem
    if whole in _DESCRIBING:
        return _DESCRIBING[whole]
    stem = whole.split(".")[0]
    plain = PurePosixPath(whole).suffix in ("", ".md", ".txt", ".rst", ".cff", ".bib", ".html")
    kind = _STEMS.get(stem) or next((_STEMS[word] for word in _PREFIXES if re.match(rf"{word}[-_ ]", stem)), None)
    if PurePosixPath(name).name.split(".")[0] == "NOTICE":
        kind = "a licence"
    if kind and plain and not (documents and kind == "a data card"):
        return kind
    if documents and PurePosixPath(whole).suffix in (".html", ".htm", ".rst"):
        return None
    return next((what for ending, what in _ENDINGS if re.search(ending, whole)), None)


def is_pointer(path: Any) -> bool:
    """Whether a file is a pointer that Git LFS left in its place."""
    with path.open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def sort_out(files: Iterable[File], documents: bool = False) -> Folder:
    """The files of a folder, hidden ones included, sorted by what they are; raw bytes are read to know pointers.

    Where the folder's data card names the files of its configuration, those are the data, and its splits theirs. Raises
    `cards.SeveralConfigurations` where it has several and no default.
    """
    files = list(files)
    data: list[File] = []
    left_out: dict[str, str] = {}
    for name, path in sorted(files, key=lambda file: file[0]):
        reason = not_data(name, documents)
        if reason is None and is_pointer(path):
            reason = LFS_REASON
        if reason is None:
            data.append((name, path))
        else:
            # A cache or a repository is one thing, however many files it has.
            parts = PurePosixPath(name).parts
            hidden = next((i for i, part in enumerate(parts[:-1]) if not_data(part)), None)
            left_out["/".join(parts[: hidden + 1]) + "/" if hidden is not None else name] = reason
    asked = {} if documents else _questions_of_passages([name for name, _ in data])
    caches, missing = ({}, []) if documents else saved(files)
    others = asked | {name: why for name, why in caches.items() if name not in left_out}
    left_out |= others
    data = [one for one in data if one[0] not in others]
    names = [name for name, _ in data]
    card = cards.Chosen() if documents else _card(files, names)
    notes = (*card.notes, *missing)
    if card.files is None:
        return Folder(data, left_out, splits_of(names), notes)
    left_out |= {name: f"not in the data card's configuration {card.name}" for name in names if name not in card.files}
    data = [one for one in data if one[0] in card.files]
    return Folder(data, left_out, card.splits or splits_of(card.files), notes)


def _questions_of_passages(names: Sequence[str]) -> dict[str, str]:
    """The files of a retrieval benchmark (BEIR) that are no passages: its questions, and which passages answer them."""
    folders = {(str(PurePosixPath(name).parent), PurePosixPath(name).name.split(".")[0].lower()) for name in names}
    found = {}
    for name in names:
        path = PurePosixPath(name)
        folder, stem = str(path.parent), path.name.split(".")[0].lower()
        if stem == "queries" and (folder, "corpus") in folders:
            found[name] = (
                "questions of a retrieval benchmark, no passages: join them by qrels into rows of query, positive"
            )
        elif path.parent.name.lower() == "qrels" and {(str(path.parent.parent), "corpus")} <= folders:
            found[name] = "which passages answer which questions of a retrieval benchmark"
    return found


def _card(files: Sequence[File], names: Sequence[str]) -> cards.Chosen:
    """What the card of a folder says of its files of data; nothing where it has none that can be read."""
    path = next((path for name, path in files if name == cards.CARD), None)
    try:
        if path is None or path.stat().st_size > cards.LARGEST:
            return cards.Chosen()
        return cards.chosen(path.read_text(encoding="utf-8-sig"), names)
    except (OSError, UnicodeDecodeError):
        return cards.Chosen()


def splits_of(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split that their name or folder says they are of, where they say so."""
    found: dict[str, list[str]] = {}
    for name in names:
        if not name.lower().removesuffix(".gz").removesuffix(".zst").endswith(SUFFIXES):
            continue
        words = re.split(r"[/._\-\s]+", name.lower())
        split = next((SPLITS[word] for word in reversed(words) if word in SPLITS), None)
        if split:
            found.setdefault(split, []).append(name)
    return found
