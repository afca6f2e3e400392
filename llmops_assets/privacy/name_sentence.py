"""The words of one sentence that may be names of persons, and what speaks for and against each: features by name.

Two analysers have read the sentence: kiwi, which guesses at words that it does not know, and mecab, whose dictionary
says which proper nouns are persons and which are places. Where they agree is evidence in itself.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache

from llmops_assets.privacy import name_context as context
from llmops_assets.privacy.lexicon import words
from llmops_assets.privacy.name_dictionary import UNLISTED, Piece, listed
from llmops_assets.privacy.name_words import (
    Features,
    clipped,
    famous,
    gazetteer,
    is_full,
    is_technical,
    is_thing,
    korean,
    named_so,
    profile,
    roles,
    sounds_like_part,
)
from llmops_assets.privacy.surnames import COMPOUND_SURNAMES, SURNAMES

_RUN = re.compile("[가-힣]+")
_CHINESE = re.compile(r"(?<=[가-힣]\()[\u4e00-\u9fff\uf900-\ufaff]{2,6}")
_LETTER = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
_WORD_BEHIND = re.compile(r"[\])}>'\"’”]*\s([가-힣]+)")
_MOST = 4
"""Words of a name."""
_LONGEST = 10
"""Syllables of a word of one."""

Bounds = tuple[int, int]


class Sentence:
    """A sentence as kiwi and mecab cut it, with its `candidates` and their features.

    Names are looked for where they begin in `places`, by default anywhere; kiwi may have cut these and their neighbours
    only.
    """

    def __init__(
        self, text: str, kiwi: Sequence[Piece], mecab: Sequence[Piece], places: Sequence[Bounds] | None = None
    ) -> None:
        self.text = text
        self._places = [(0, len(text))] if places is None else places
        self._kiwi, self._mecab = _Cut(kiwi, len(text)), _Cut(mecab, len(text))
        self._before: dict[int, Features] = {}
        self._after: dict[int, Features] = {}
        self._parts: dict[Bounds, bool] = {}
        self._stops: dict[Bounds, set[int]] = {}

    def candidates(self) -> list[Bounds]:
        """Where a name may be, in order; most are none. All begin in `places`."""
        runs = [match.span() for match in _RUN.finditer(self.text)]
        found: set[Bounds] = set()
        for number, (start, end) in enumerate(runs):
            if not self._within(start) or is_technical(self.text[start:end]):
                continue
            inside = (at for at in range(start + 1, end) if self._kiwi.noun_at(at) or self._mecab.noun_at(at))
            for begin in (start, *inside):
                found.update((begin, stop) for stop in self._ends(begin, end) if self._worth(begin, stop))
            found.update(self._of_several(runs, number))
        letters = (m.span() for m in _LETTER.finditer(self.text) if context.initial(self.text, m.end()))
        found.update(span for span in letters if self._within(span[0]))
        none = (context.somebody, context.counted, _is_term)
        return sorted(span for span in found if not any(is_none(self.text, *span) for is_none in none))

    def _within(self, at: int) -> bool:
        return any(start <= at < end for start, end in self._places)

    def chinese(self) -> list[Bounds]:
        """Words in Chinese characters in a parenthesis: the same name again, where a name precedes."""
        return [match.span() for match in _CHINESE.finditer(self.text)]

    def _of_several(self, runs: list[Bounds], number: int) -> list[Bounds]:
        """Names of several words that begin with this one: each but the last stands alone."""
        found: list[Bounds] = []
        start, end = runs[number]
        for following, stop in runs[number + 1 : number + _MOST]:
            if following != end + 1 or self.text[end] != " " or not self._part(start, end):
                break
            found += [(runs[number][0], last) for last in self._ends(following, stop) if self._part(following, last)]
            start, end = following, stop
        return found

    def _ends(self, start: int, end: int) -> set[int]:
        """Where a name that begins at `start` may end, in a word that ends at `end`."""
        if (start, end) not in self._stops:
            self._stops[start, end] = self._find_ends(start, end)
        return self._stops[start, end]

    def _find_ends(self, start: int, end: int) -> set[int]:
        ends = {at for at in range(start + 1, end) if at in self._kiwi.ends or at in self._mecab.ends}
        ends.update(start + at for at in _ends_of(self.text[start:end]))
        return {at for at in ends if at - start <= _LONGEST}

    def _worth(self, start: int, end: int) -> bool:
        """Whether anything at all speaks for a name in one word."""
        word = self.text[start:end]
        known = profile(word)
        if known.thing:
            return False
        if len(word) == 1:
            return word in SURNAMES and (context.surname_alone(self.text, end) or context.in_office(self.text, end))
        if known.sure or self._kiwi.proper_over(start) or self._mecab.proper_over(start):
            return True
        if known.given and self._kiwi.tag(start).startswith(("N", "M")):
            return start in self._kiwi.starts
        return known.listed

    def _part(self, start: int, end: int) -> bool:
        """Whether a word may be part of a name of several."""
        if (start, end) not in self._parts:
            self._parts[start, end] = self._is_part(start, end)
        return self._parts[start, end]

    def _is_part(self, start: int, end: int) -> bool:
        word = self.text[start:end]
        if is_technical(word):
            return False
        if profile(word).part:
            return True
        votes = self._kiwi.proper_over(start) + self._mecab.proper_over(start)
        return votes > 0 and sounds_like_part(word) > (-0.5 if votes == 2 else 0.2)

    def _likely(self, start: int, end: int) -> float:
        """How much a word beside is like a part of a name, from 0 to 3."""
        word = self.text[start:end]
        if word in roles() or not self._part(start, end):
            return 0.0
        votes = 0.4 * (self._kiwi.whole(start, end) == "NNP") + 0.6 * (self._mecab.whole(start, end) == "NNP 인명")
        return clipped(votes + 0.4 * named_so(word), 0.0, 3.0)

    def inside(self, start: int, end: int) -> Features:
        """Features of a candidate beyond its form (`name_words.form`) and what is `before` and `after` it."""
        text, word = self.text, self.text[start:end]
        found: Features = {"bias": 1.0}
        parts = word.split(" ")
        if len(parts) > 1:
            self._several(start, parts, found)
        elif len(word) == 1:
            found["surname with 씨"] = float(context.surname_alone(text, end))
            found["surname in office"] = float(context.in_office(text, end))
        kiwi = self._kiwi.describe("kiwi", start, end, len(parts), found)
        mecab = self._mecab.describe("mecab", start, end, len(parts), found)
        both = "both: " + ("-" if kiwi is None else kiwi) + " and " + ("-" if mecab is None else mecab)
        found[both] = 1.0
        if len(parts) == 1:
            found[f"length {min(len(word), 4)}: {kiwi == 'NNP'}, {mecab == 'NNP 인명'}"] = 1.0
        if len(word) > 1 and text.count(word) > 1:
            found["named again"] = 1.0
        if context.mark_ahead(text[start - 1 : start]) == context.mark_behind(text[end : end + 1]) == "quote":
            found["quoted"] = 1.0
        return found

    def _several(self, start: int, parts: list[str], found: Features) -> None:
        """Features of a name of several words."""
        found[f"words {len(parts)}"] = 1.0
        joined = "".join(parts)
        found["words: known"] = float(joined in gazetteer().people)
        found["words: known thing"] = float(joined in gazetteer().others)
        at, kiwi, mecab = start, 0, 0
        for part in parts:
            end = at + len(part)
            kiwi += self._kiwi.covered(at, end)
            mecab += self._mecab.whole(at, end) == "NNP 인명"
            at = end + 1
        found["words: proper"], found["words: persons"] = kiwi / len(parts), mecab / len(parts)
        found["words: all proper"], found["words: all persons"] = float(kiwi == len(parts)), float(mecab == len(parts))
        found["words: a role or thing"] = float(any(part in roles() or is_thing(part) for part in parts))
        found["words: a full name"] = float(any(is_full(part) and korean(part) > 1 for part in parts))
        found["words: famous"] = float(any(part in famous() for part in parts))
        sounds = [clipped(named_so(part), -3.0, 3.0) for part in parts]
        found["words: mean"], found["words: least"] = sum(sounds) / len(sounds), min(sounds)
        entries = [listed(part) for part in parts]
        found["words: listed"] = sum(entry.person < UNLISTED for entry in entries) / len(parts)
        found["words: least listed"] = min(clipped((e.thing - e.person) / 1000, -5.0, 5.0) for e in entries)
        found[f"words: first of {min(len(parts[0]), 6)}"] = 1.0
        found[f"words: last of {min(len(parts[-1]), 6)}"] = 1.0
        found["words: first"], found["words: last"] = sounds[0], sounds[-1]

    def before(self, start: int) -> Features:
        """Features of what stands before a name that begins here."""
        if start not in self._before:
            self._before[start] = self._find_before(start)
        return self._before[start]

    def after(self, end: int) -> Features:
        """Features of what stands behind a name that ends here."""
        if end not in self._after:
            self._after[end] = self._find_after(end)
        return self._after[end]

    def _find_before(self, start: int) -> Features:
        text = self.text
        found: Features = dict.fromkeys(context.ahead(text, start), 1.0)
        found["before: " + context.mark_ahead(text[start - 1 : start] if start else "")] = 1.0
        if tag := self._kiwi.before(start):
            found["before: kiwi " + tag] = 1.0
        if tag := self._mecab.before(start):
            found["before: mecab " + tag] = 1.0
        found["kiwi begins"] = float(start in self._kiwi.starts)
        found["mecab begins"] = float(start in self._mecab.starts)
        if start > 1 and text[start - 1] == " " and _RUN.match(text[start - 2]):
            begin = start - 2
            while begin and _RUN.match(text[begin - 1]):
                begin -= 1
            found["before: part of a name"] = self._likely(begin, start - 1)
        return found

    def _find_after(self, end: int) -> Features:
        text = self.text
        found: Features = dict.fromkeys(context.behind(text, end), 1.0)
        run = _RUN.match(text, end)
        if run is None:
            found["ends: " + context.mark_behind(text[end : end + 1])] = 1.0
        else:
            rest = run.group()
            found["ends: " + context.tail(rest)] = 1.0
            found["no ending"] = float(context.TAIL.match(text, end) is None)
            found["role at its end"] = float(rest in roles())
        found["kiwi ends"] = float(end in self._kiwi.ends)
        found["mecab ends"] = float(end in self._mecab.ends)
        if tag := self._kiwi.after(end):
            found["after: kiwi " + tag] = 1.0
        following = _RUN.match(text, end + 1) if text[end : end + 1] == " " else None
        if following is not None:
            begin, stop = following.span()
            # A word longer than any name ends nowhere in it, unless the analysers cut it.
            likely = (self._likely(begin, at) for at in self._ends(begin, stop))
            found["after: part of a name"] = max(likely, default=0.0)
            entry = listed(following.group())
            found["after: a person"] = float(entry.person < UNLISTED and entry.person < entry.thing)
        return found


def _is_term(text: str, start: int, end: int) -> bool:
    """Whether a given name is a term here (이진 파일, 지연 시간): another term or what is measured stands beside it."""
    if text[start:end] not in words("homonyms"):
        return False
    behind = _WORD_BEHIND.match(text, end)
    begin = start - 1
    while begin > 0 and _RUN.match(text[begin - 1]):
        begin -= 1
    return any(_of_terms(word) for word in (text[max(begin, 0) : max(start - 1, 0)], behind[1] if behind else ""))


def _of_terms(word: str) -> bool:
    bare = context.ENDED.match(word)
    return any(one in words("measures") or is_technical(one) for one in (word, bare[1] if bare else "") if one)


@lru_cache(1 << 16)
def _ends_of(word: str) -> tuple[int, ...]:
    """Where a name that begins a word may end, whatever an analyser says: by surnames and particles."""
    ends = [len(word)]
    if word[0] in SURNAMES:
        ends += range(1, min(3, len(word)) + 1)
    if word[:2] in COMPOUND_SURNAMES and len(word) >= 4:
        ends.append(4)
    if bare := context.ENDED.match(word):
        ends.append(bare.end(1))
    return tuple(ends)


def may_hold_name(word: str, pieces: Sequence[Piece]) -> bool:
    """Whether a word of several syllables that stands alone, cut so, can have a candidate: false is certain."""
    if is_technical(word):
        return False
    if any(_is_proper(piece.tag) or _may_be_name(piece.tag) for piece in pieces):
        return True
    if word[0] in SURNAMES and context.surname_alone(word, 1):
        return True
    for end in {*(piece.end for piece in pieces), *_ends_of(word)}:
        known = profile(word[:end])
        if end > 1 and not known.thing and (known.sure or known.given or known.listed):
            return True
    return False


@cache
def _is_proper(tag: str) -> bool:
    """A proper noun, maybe with what follows it, or a noun that kiwi does not know."""
    return tag.startswith("NNP") or (tag.startswith("N") and tag.endswith("?"))


@cache
def _may_be_name(tag: str) -> bool:
    """A proper noun by itself, or a word that the analyser does not know."""
    return tag in ("NNP", "UNKNOWN") or (tag.startswith("N") and tag.endswith("?"))


@cache
def _described(tag: str, meaning: str) -> str:
    """A tag by its first part, with what a proper noun means."""
    first = tag.split("+")[0]
    return f"NNP {meaning}" if first == "NNP" and meaning != "*" else first


class _Cut:
    """Morphemes of a sentence by position."""

    def __init__(self, pieces: Sequence[Piece], length: int) -> None:
        self._pieces = pieces
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.proper = [_is_proper(piece.tag) for piece in pieces]
        self._at: list[int | None] = [None] * (length + 1)
        reached = 0
        for number, (start, end, _, _) in enumerate(pieces):
            self.starts.setdefault(start, number)
            self.ends[end] = number
            # Contracted morphemes overlap: the first counts.
            begin = max(start, reached)
            if end > begin:
                self._at[begin:end] = [number] * (end - begin)
                reached = end

    def _tag(self, number: int) -> str:
        piece = self._pieces[number]
        return _described(piece.tag, piece.meaning)

    def tag(self, at: int) -> str:
        """The tag of the morpheme over position `at`, without meaning; empty if there is none."""
        number = self._at[at]
        return "" if number is None else self._pieces[number].tag

    def proper_over(self, at: int) -> bool:
        """Whether the morpheme over position `at` is just a proper or an unknown noun."""
        number = self._at[at]
        return number is not None and _may_be_name(self._pieces[number].tag)

    def noun_at(self, at: int) -> bool:
        """Whether a proper or an unknown noun begins at `at`."""
        number = self.starts.get(at)
        return number is not None and self.proper[number]

    def whole(self, start: int, end: int) -> str:
        """The tag of the morpheme that is just `start:end`; empty if there is none."""
        number = self.starts.get(start)
        return self._tag(number) if number is not None and self._pieces[number].end == end else ""

    def covered(self, start: int, end: int) -> bool:
        """Whether `start:end` lies within one proper or unknown noun."""
        number = self._at[start]
        return number is not None and self.proper[number] and self._pieces[number].end >= end

    def before(self, start: int) -> str:
        """The tag of the morpheme before the one at `start`."""
        number = self._at[start]
        return self._tag(number - 1) if number else ""

    def after(self, end: int) -> str:
        """The tag of the morpheme behind the one that ends at `end`, with + if no space is between."""
        number = self.ends.get(end)
        if number is None or number + 1 == len(self._pieces):
            return ""
        return ("+" if self._pieces[number + 1].start == end else "") + self._tag(number + 1)

    def describe(self, name: str, start: int, end: int, words: int, found: Features) -> str | None:
        """Adds how `start:end` was cut; returns the tag if it is one morpheme, "…" if not, None if there is none."""
        first = self._at[start]
        if first is None:
            return None
        behind = first
        while behind < len(self._pieces) and self._pieces[behind].start < end:
            behind += 1
        inside = self._pieces[first:behind]
        begins, ends = inside[0].start == start, inside[-1].end == end
        tag = self._tag(first)
        if len(inside) == 1:
            whole = begins and ends
            found[f"{name}: {tag}" + ("" if whole else f", {'from' if begins else 'in'} {'to' if ends else 'in'}")] = (
                1.0
            )
            return tag if whole else "…"
        how = "to" if begins and ends else "over" if inside[-1].end > end else "in"
        found[f"{name}: {tag} and more, {how}"] = 1.0
        found[f"{name}: last {self._tag(behind - 1)}"] = 1.0
        found[f"{name}: pieces"] = float(min(len(inside) - words + 1, 4))
        found[f"{name}: names"] = float(all(self.proper[first:behind]))
        found[f"{name}: persons"] = float(all(piece.meaning == "인명" for piece in inside))
        found[f"{name}: a verb or particle"] = float(
            any(piece.tag.startswith(("V", "E", "J", "XS")) for piece in inside)
        )
        return "…"
