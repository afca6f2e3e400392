"""What was counted in a dictionary is read again, and counted anew where it is not what was counted."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from llmops_assets.privacy import kept_counts


@dataclass(frozen=True)
class Words:
    people: frozenset[str]
    odds: dict[str, float]
    pairs: tuple[dict[str, tuple[int, int]], ...]


WORDS = Words(frozenset({"홍길동", "유재석"}), {"가": 0.1, "나": -2.5}, ({"길동": (3, 1)}, {}))


class Counter:
    def __init__(self, folder: Path) -> None:
        self.source, self.counted = folder / "words.dic", 0
        self.source.write_text("홍길동\n유재석\n", encoding="utf-8")

    def __call__(self, rule: str = "1") -> Words:
        return kept_counts.kept("words", self.source, rule, Words, self._count)

    def _count(self) -> Words:
        self.counted += 1
        return WORDS


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter:
    monkeypatch.setenv("LLMOPS_CACHE", str(tmp_path / "cache"))
    return Counter(tmp_path)


def test_it_is_counted_once_and_read_as_it_was(counter: Counter) -> None:
    assert counter() == WORDS == counter() and counter.counted == 1


def test_another_dictionary_and_another_rule_are_counted_anew(counter: Counter) -> None:
    counter(), counter("2")
    assert counter.counted == 2
    counter.source.write_text("홍길동\n유재식\n", encoding="utf-8")
    counter(), counter("2")
    assert counter.counted == 4


@pytest.mark.parametrize("spoil", [lambda b: b[:-3], lambda b: b[:40] + b"x" + b[41:], lambda b: b"", lambda b: b * 2])
def test_a_file_that_is_not_what_was_written_is_counted_anew(counter: Counter, spoil: object) -> None:
    counter()
    (file,) = kept_counts.folder().iterdir()
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    assert counter() == WORDS and counter.counted == 2 and file.read_bytes() == whole


def test_where_nothing_can_be_written_nothing_is_kept(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_CACHE", str(counter.source / "no-folder"))
    assert counter() == WORDS == counter() and counter.counted == 2


def test_it_is_kept_in_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLMOPS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept_counts.folder() == tmp_path / "llmops"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert kept_counts.folder() == tmp_path / "home" / ".cache" / "llmops"
