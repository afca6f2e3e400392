"""Finds entries of a vocabulary that were exchanged: their ids stand out of the order that training a tokenizer gives.

A tokenizer numbers its entries as it learns them: the letters first, in the order of their code points, then what
each merge makes (BPE), or pieces by falling score (Unigram). Exchange the ids of two, and every text is cut as before
into tokens that mean something else to the weights, which no size and no round trip of a text shows. WordPiece leaves
no order that could be looked at, and a vocabulary that was sorted by something else (its letters, how often each entry
occurs) is left alone.
"""

import json
from bisect import bisect, bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

_FEWEST = 40
"""Entries of a sequence from which on its order says something."""
_IN_PLACE = 0.3
"""Share that must be in order for the others to be the ones that were moved: of no order hardly a tenth is."""
_FAR = 0.05
"""Share of a sequence by which an entry must be out of its place: converters put entries of one rank as they like."""
_NO_ORDER = 4.0
"""Standard deviations of Spearman's correlation within which there is no order at all."""
_RANDOM_RUN = 3.0
"""Of n entries in no order the longest increasing subsequence has twice the root of n (Vershik & Kerov 1977)."""
_SHOWN = 4

Entry = tuple[str, int]


def faults(folder: Path) -> list[str]:
    """What is wrong with the order of the vocabulary in `folder`, a sentence each."""
    try:
        found: Any = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        model = found["model"]
        added = {token["content"] for token in found.get("added_tokens") or []}
        sequences = list(_sequences(model, added))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        # Without that file, or where it is none, loading it says so.
        return []
    moved = _exchanged(_one_after_another([entries for _, entries in sequences]))
    if moved:
        shown = ", ".join(f"{token!r} ({number})" for token, number in moved[:_SHOWN])
        more = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
        return [
            f"entries of its vocabulary were exchanged: the ids of {shown}{more} stand where the order of the others "
            "(that of the merges, or of their scores) has no place for them, so these tokens mean something else to "
            f"the weights. {_ADVICE}"
        ]
    for name, entries in sequences:
        if name != "letters" and _shuffled(entries):
            return [
                f"the ids of its vocabulary stand in no order at all: of {len(entries):,} entries, which a tokenizer "
                f"numbers in the order of its {name}, so its tokens mean something else to the weights. {_ADVICE}"
            ]
    return []


_ADVICE = "tokenizer.json was edited or is another model's: copy it again from where the weights are from"


def _sequences(model: dict[str, Any], added: set[str]) -> Iterator[tuple[str, list[Entry]]]:
    """Entries in the order that their ids should have, a list for each kind."""
    if model.get("type") == "Unigram":
        pieces = [(str(piece), float(score), number) for number, (piece, score) in enumerate(model["vocab"])]
        own = [one for one in pieces if one[0] not in added and not _is_byte(one[0]) and one[1] != 0.0]
        yield "scores", [(piece, number) for piece, _, number in sorted(own, key=lambda one: (-one[1], one[2]))]
        return
    if model.get("type", "BPE") != "BPE" or not model.get("merges"):
        return
    ids: dict[str, int] = {str(token): int(number) for token, number in model["vocab"].items()}
    made: dict[str, int] = {}
    for merge in model["merges"]:
        one, other = merge.split(" ", 1) if isinstance(merge, str) else merge
        token = one + other
        if token in ids and token not in added:
            made.setdefault(token, ids[token])
    letters = [(token, n) for token, n in ids.items() if len(token) == 1 and token not in made and token not in added]
    yield "letters", sorted(letters)
    yield "bytes", sorted((token, n) for token, n in ids.items() if _is_byte(token))
    yield "merges", list(made.items())


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _ranks(entries: Sequence[Entry]) -> np.ndarray:
    return np.argsort(np.argsort([number for _, number in entries]))


def _one_after_another(kinds: Sequence[list[Entry]]) -> list[Entry]:
    """All entries, the kind with the lower ids first: an entry may be exchanged for one of another kind.

    A kind without order is left out: SentencePiece numbers letters by how often they occur.
    """
    found = [
        entries
        for entries in kinds
        if entries and len(_longest_increasing([number for _, number in entries])) >= _IN_PLACE * len(entries)
    ]
    found.sort(key=lambda entries: median(number for _, number in entries))
    return [entry for entries in found for entry in entries]


def _exchanged(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are far from where most others say that they belong; none where most are not in place.

    In place is a longest increasing subsequence of the ids.
    """
    if len(entries) < _FEWEST:
        return []
    numbers = [number for _, number in entries]
    kept = _longest_increasing(numbers)
    if len(kept) < _IN_PLACE * len(entries):
        return []
    in_order = [numbers[place] for place in kept]
    others = sorted(set(range(len(entries))) - set(kept))
    # Between which of those in order an entry stands, and between which its id belongs.
    stands = {place: bisect(kept, place) for place in others}
    belongs = {place: bisect(in_order, numbers[place]) for place in others}
    standing, belonging = Counter(stands.values()), Counter(belongs.values())
    # Where one belongs that was exchanged, another stands. A block of entries that was added to a vocabulary, whose
    # merges were put before the others, belongs where nothing is missing.
    return [
        entries[place]
        for place in others
        if abs(stands[place] - belongs[place]) > _FAR * len(entries)
        and belonging[belongs[place]] <= standing[belongs[place]]
    ]


def _longest_increasing(numbers: Sequence[int]) -> list[int]:
    """Places of a longest increasing subsequence (Fredman 1975)."""
    ends: list[int] = []
    places: list[int] = []
    before: list[int] = []
    for place, number in enumerate(numbers):
        at = bisect_left(ends, number)
        before.append(places[at - 1] if at else -1)
        ends[at : at + 1], places[at : at + 1] = [number], [place]
    found, place = [], places[-1]
    while place >= 0:
        found.append(place)
        place = before[place]
    return found[::-1]


def _shuffled(entries: Sequence[Entry]) -> bool:
    """Whether ids go neither with the place in the sequence nor with the alphabet."""
    if len(entries) < _FEWEST:
        return False
    if len(_longest_increasing([number for _, number in entries])) > _RANDOM_RUN * np.sqrt(len(entries)):
        return False

    def unrelated(order: np.ndarray) -> bool:
        related = np.corrcoef(_ranks(entries), order)[0, 1]
        return bool(abs(related) * np.sqrt(len(entries) - 1) < _NO_ORDER)

    alphabet = np.argsort(np.argsort(np.array([token for token, _ in entries])))
    return unrelated(np.arange(len(entries))) and unrelated(alphabet)
