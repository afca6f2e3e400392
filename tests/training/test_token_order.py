"""A vocabulary whose entries were exchanged is found by the order of its ids, and no other order is taken for that."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops_assets.training import token_order

Vocabulary = dict[str, int]


def merged(count: int = 400, first: int = 256) -> tuple[Vocabulary, list[list[str]]]:
    """A vocabulary of letters and of what `count` merges make of them, numbered in that order."""
    letters = [chr(0x100 + n) for n in range(first)]
    merges = [[letters[n % first], letters[(n * 7 + n // first) % first]] for n in range(count)]
    tokens = list(dict.fromkeys([*letters, *("".join(merge) for merge in merges)]))
    return {token: number for number, token in enumerate(tokens)}, merges


def faults(folder: Path, model: dict[str, Any]) -> list[str]:
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}), encoding="utf-8")
    return token_order.faults(folder)


def bpe(vocabulary: Vocabulary, merges: list[list[str]]) -> dict[str, Any]:
    return {"type": "BPE", "vocab": vocabulary, "merges": merges}


def exchanged(vocabulary: Vocabulary, one: str, other: str) -> Vocabulary:
    return vocabulary | {one: vocabulary[other], other: vocabulary[one]}


def test_one_exchanged_pair_is_named_whatever_the_two_are(tmp_path: Path) -> None:
    vocabulary, merges = merged()
    assert faults(tmp_path, bpe(vocabulary, merges)) == []
    tokens = list(vocabulary)
    for one, other in ((300, 600), (20, 200), (20, 600)):
        (words,) = faults(tmp_path, bpe(exchanged(vocabulary, tokens[one], tokens[other]), merges))
        assert words.startswith("entries of its vocabulary were exchanged")
        assert repr(tokens[one]) in words and repr(tokens[other]) in words


def test_pieces_with_scores_are_held_to_their_order(tmp_path: Path) -> None:
    pieces = [[f"p{n}", -1.0 - n / 100] for n in range(500)]
    assert faults(tmp_path, {"type": "Unigram", "vocab": pieces}) == []
    pieces[40], pieces[400] = pieces[400], pieces[40]
    assert "'p40' (400)" in faults(tmp_path, {"type": "Unigram", "vocab": pieces})[0]


def shuffled(vocabulary: Vocabulary, rng: random.Random) -> Vocabulary:
    return dict(zip(vocabulary, rng.sample(range(len(vocabulary)), len(vocabulary)), strict=True))


def by_alphabet(vocabulary: Vocabulary, rng: random.Random) -> Vocabulary:
    return {token: number for number, token in enumerate(sorted(vocabulary))}


def by_frequency(vocabulary: Vocabulary, rng: random.Random) -> Vocabulary:
    noise = {token: number + rng.gauss(0, 60) for token, number in vocabulary.items()}
    return {token: number for number, token in enumerate(sorted(noise, key=noise.__getitem__))}


@pytest.mark.parametrize(("change", "found"), [(shuffled, True), (by_alphabet, False), (by_frequency, False)])
def test_no_order_at_all_is_a_fault_and_another_order_is_none(
    tmp_path: Path, change: Callable[[Vocabulary, random.Random], Vocabulary], found: bool
) -> None:
    vocabulary, merges = merged(2000)
    words = faults(tmp_path, bpe(change(vocabulary, random.Random(3)), merges))
    assert [one.startswith("the ids of its vocabulary stand in no order") for one in words] == [True] * found


def test_entries_that_were_added_behind_a_vocabulary_with_their_merges_in_front_are_no_fault(tmp_path: Path) -> None:
    vocabulary, merges = merged(1200)
    added = ["".join(merge) + "!" for merge in merges[:300]]
    more = {token: len(vocabulary) + number for number, token in enumerate(added)}
    in_front = [["".join(merge), "!"] for merge in merges[:300]]
    assert faults(tmp_path, bpe(vocabulary | more, [*in_front, *merges])) == []


def test_letters_that_are_numbered_by_how_often_they_occur_are_no_fault(tmp_path: Path) -> None:
    vocabulary, merges = merged(1200)
    letters = [token for token in vocabulary if len(token) == 1]
    ids = random.Random(1).sample(range(len(letters)), len(letters))
    assert faults(tmp_path, bpe(vocabulary | dict(zip(letters, ids, strict=True)), merges)) == []


def test_a_folder_without_such_a_tokenizer_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert token_order.faults(tmp_path) == []
    (tmp_path / "tokenizer.json").write_text("{")
    assert token_order.faults(tmp_path) == []
    assert faults(tmp_path, {"type": "WordPiece", "vocab": {"a": 0}}) == []
