"""Names by a token classifier of the user's: which of its labels are persons, and its spans without their particles."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from llmops_assets.privacy.masking import Span, resolve
from llmops_assets.privacy.name_context import ENDED
from llmops_assets.privacy.name_dictionary import cut_word
from llmops_assets.privacy.name_words import LOCK, is_full, korean
from llmops_assets.privacy.names import find_names
from llmops_assets.specs.dataset_rules import NameModelRules
from resources.name_reader import NameReader, NameReaderError

_PLACED = re.compile(r"(?P<place>[BIESLUM])[-_](?P<kind>.+)|(?P<kind_first>.+)[-_](?P<place_last>[BIESLUM])")
"""A label of BIO, BIOES or BILOU, with the place before or behind."""
_SAME = {"L": "E", "U": "S", "M": "I"}
_PERSON = re.compile(r"(?i:PS|PER|PERS|PERSON|PERSON[-_ ]?NAME|NAME|PS[-_]NAME|인명|사람|이름)")
"""What corpora call a person: KLUE PS, CoNLL PER, OntoNotes PERSON, the National Institute's PS_NAME, …"""
_HANGUL = re.compile("[가-힣]+")
_PARTICLES = ("J", "VCP", "E", "XSN")
_FILES = ("*.safetensors", "*.json", "vocab*", "*.model", "merges.txt")


class NameModelError(RuntimeError):
    """The folder that a policy names holds no model that can be used for names; the message says why."""


def _parted(label: str) -> tuple[str, str]:
    """Place (B, I, E, S, or P without one) and kind of a label."""
    match = _PLACED.fullmatch(label)
    if match is None:
        return "P", label
    place = match["place"] or match["place_last"]
    return _SAME.get(place, place), match["kind"] or match["kind_first"]


def tags_of(labels: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """Of each label what it means for a person: O, B, I, E, S or P.

    `wanted` are labels, or kinds of them, that mean a person; without, those that usually do. NameModelError, with the
    labels that there are, where none does or a wanted one is missing.
    """
    parted = [_parted(label) for label in labels]
    if wanted is not None and (
        absent := [w for w in wanted if w not in labels and all(w != kind for _, kind in parted)]
    ):
        raise NameModelError(f"no label {', '.join(absent)} (datasets.pii.names.labels); there are {', '.join(labels)}")

    def means_person(label: str, kind: str) -> bool:
        return label in wanted or kind in wanted if wanted is not None else _PERSON.fullmatch(kind) is not None

    tags = [place if means_person(label, kind) else "O" for label, (place, kind) in zip(labels, parted, strict=True)]
    if set(tags) == {"O"}:
        raise NameModelError(
            f"none of the labels {', '.join(labels)} is known for a person: "
            "name those that are in datasets.pii.names.labels"
        )
    return tags


def labels_of(folder: Path) -> list[str]:
    """The labels of the token classifier in a folder, by number. NameModelError where there is none to use."""
    if not (folder / "config.json").is_file():
        raise NameModelError("config.json is missing: it is no folder with a model")
    if not any(folder.glob("*.safetensors")):
        raise NameModelError("it holds no safetensors: pickled weights are not loaded")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("auto_map"):
            raise NameModelError("it wants to run code of its own (auto_map in config.json), which is never done")
        if not any("TokenClassification" in name for name in config.get("architectures") or []):
            raise NameModelError(f"it is {config.get('architectures')}, no model for token classification")
        labels = {int(number): str(label) for number, label in config["id2label"].items()}
        return [labels[number] for number in range(len(labels))]
    except (ValueError, KeyError, AttributeError) as error:
        raise NameModelError(f"its config.json names no labels (id2label): {error!r}") from error


def content_hash(folder: Path) -> str:
    """16 hex digits over all that decides what a model says."""
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    return _hash_of(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@lru_cache(8)
def _hash_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    found = hashlib.sha256()
    for path, size, _ in files:
        with path.open("rb") as file:
            found.update(f"{path.name} {size} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def without_particles(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without blanks at its edges and without particles behind the name: 김민수는 is 김민수."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    last = [match for match in _HANGUL.finditer(text, start, end) if match.end() == end]
    # Where the word goes on behind the span, the model has left the particle out itself.
    if not last or _HANGUL.match(text, end):
        return start, end
    begin, word = last[0].start(), last[0].group()
    if ENDED.match(word) is None or (is_full(word) and korean(word) > 0):
        return start, end
    pieces = cut_word(word)
    while len(pieces) > 1 and pieces[-1].tag.startswith(_PARTICLES):
        pieces.pop()
    stop = pieces[-1].end
    if stop == len(word) and len(word) == 4 and is_full(word[:3]) and korean(word[:3]) > 0:
        stop = 3
    return (start, begin + stop) if stop > 1 else (start, end)


class NameModel:
    """Finds names by a model of the user's, beside ours or instead of ours: one of `pii.NameFinder`."""

    def __init__(self, folder: Path, tags: list[str], *, instead: bool) -> None:
        self._instead = instead
        self._read = NameReader(folder, tags)
        self.identity = [content_hash(folder), tags, instead]
        try:
            self._read.start()
        except NameReaderError as error:
            raise NameModelError(f"datasets.pii.names.model: {error}") from error

    def __call__(self, texts: list[str]) -> list[list[Span]]:
        """Spans of persons' names in each text; the score is how sure the model is."""
        asked = [text for text in texts if text.strip()]
        answers = iter(self._read(asked) if asked else [])
        marked = [next(answers) if text.strip() else [] for text in texts]
        with LOCK:
            found = [
                [
                    Span(*without_particles(text, start, end), "PERSON", max(0.5, min(0.95, sure)))
                    for start, end, sure in spans
                    if text[start:end].strip()
                ]
                for text, spans in zip(texts, marked, strict=True)
            ]
        if self._instead:
            return found
        return [resolve([*theirs, *ours]) for theirs, ours in zip(found, find_names(texts), strict=True)]


@lru_cache(4)
def _model(folder: Path, tags: tuple[str, ...], instead: bool, content: str) -> NameModel:
    return NameModel(folder, list(tags), instead=instead)


def name_model(rules: NameModelRules) -> NameModel:
    """The model that a policy names, loaded once a process. NameModelError, with the reason, if it cannot be used."""
    folder = Path(rules.model).expanduser()
    try:
        tags = tags_of(labels_of(folder), rules.labels)
    except NameModelError as error:
        raise NameModelError(f"datasets.pii.names.model: {folder}: {error}") from None
    return _model(folder, tuple(tags), rules.instead, content_hash(folder))
