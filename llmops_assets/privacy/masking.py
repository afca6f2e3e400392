"""Finds and masks personal data by pattern, Korean and international: one set of rules for datasets and gateway."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from llmops_assets.privacy.needed import LATIN, WordIndex
from llmops_assets.privacy.pattern import Pattern, fold
from llmops_assets.privacy.patterns import PATTERNS
from llmops_assets.privacy.prefilter import prefilter

PLACEHOLDERS: Mapping[str, str] = {
    "PERSON": "[이름]",
    "KR_RRN": "[주민등록번호]",
    "KR_FRN": "[외국인등록번호]",
    "PHONE_NUMBER": "[전화번호]",
    "EMAIL_ADDRESS": "[이메일]",
    "KR_ADDRESS": "[주소]",
    "KR_ACCOUNT": "[계좌번호]",
    "CREDIT_CARD": "[카드번호]",
    "KR_PASSPORT": "[여권번호]",
    "KR_DRIVER_LICENSE": "[운전면허번호]",
    "KR_BRN": "[사업자등록번호]",
    "KR_PLATE": "[차량번호]",
    "IP_ADDRESS": "[IP주소]",
    "US_SSN": "[사회보장번호]",
    "IBAN_CODE": "[국제계좌번호]",
}
"""What replaces a span where the caller names no placeholders of its own."""


@dataclass(frozen=True)
class Span:
    """Personal data at `text[start:end]`, in characters."""

    start: int
    end: int
    type: str
    score: float


@lru_cache(512)
def _compiled(expression: str, unless: str) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    return re.compile(expression), re.compile(f"(?:{unless})$") if unless else None


_LONGEST_CONTEXT = 32
NEAR = 40
"""Characters on each side within which a word of `Pattern.context` counts."""


def stands_near(pattern: Pattern, text: str, start: int, end: int) -> bool:
    """Whether a word that the pattern wants is near `text[start:end]`."""
    around = text[max(0, start - NEAR) : end + NEAR].casefold()
    return not pattern.context or any(word.casefold() in around for word in pattern.context)


FIGURE = "[0-9@]"
"""What every numeric pattern needs at least."""
_FIGURE = re.compile(FIGURE)
_LATIN = re.compile(f"[{LATIN}]")


def matches(pattern: Pattern, text: str) -> list[tuple[int, int]]:
    """Where a pattern holds in an already folded text."""
    if pattern.anywhere:
        plain = text.casefold()
        if not any(part in plain for part in pattern.anywhere):
            return []
    expression, unless = _compiled(pattern.expression, pattern.unless)
    found = []
    for match in expression.finditer(text):
        start, end = match.span("span")
        if unless is not None and unless.search(text, max(0, start - _LONGEST_CONTEXT), start):
            continue
        if pattern.valid is not None and not pattern.valid(text[start:end]):
            continue
        if not stands_near(pattern, text, start, end):
            continue
        found.append((start, end))
    return found


class _Gates:
    """Which of some patterns may hold in a text: by one automaton for all of them, or, where there is none, by what
    each needs of a text, those that need least first.
    """

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        self.patterns = patterns
        self._may_match = prefilter(tuple([pattern.expression for pattern in patterns])).may_match

    def open_for(self, text: str) -> list[Pattern]:
        """The patterns that may hold in a folded text."""
        places = self._may_match(text)
        return self._with_what_they_need.open_for(text) if places is None else [self.patterns[at] for at in places]

    def may_hold(self, folded: str) -> bool:
        """Whether a pattern may hold in a folded text; True where nothing can be said of it."""
        places = self._may_match(folded)
        return places is None or bool(places)

    @cached_property
    def _with_what_they_need(self) -> "_Needs":
        return _Needs(self.patterns)


class _Needs:
    """What a text must hold for each of some patterns to be searched for."""

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        self.needed = sorted(((p.figures, p.latin, p.words, p) for p in patterns), key=lambda one: one[0])
        self.words = WordIndex(word for pattern in patterns for needed in pattern.words for word in needed)

    def open_for(self, text: str) -> list[Pattern]:
        """The patterns that may hold in a folded text."""
        figures = len(_FIGURE.findall(text))
        present = self.words.found(text)
        found = []
        has_latin = _LATIN.search(text) is not None
        for least, latin, words, pattern in self.needed:
            if least > figures:
                break
            if latin and not has_latin:
                continue
            for needed in words:
                if needed.isdisjoint(present):
                    break
            else:
                found.append(pattern)
        return found


_gates: dict[int, _Gates] = {}
_MOST_GATES = 64


def _gates_of(patterns: Iterable[Pattern]) -> _Gates:
    # By the object that holds the patterns, which its gates keep alive: to compare patterns costs more than to search.
    known = _gates.get(id(patterns))
    if known is not None and known.patterns is patterns:
        return known
    if not isinstance(patterns, tuple):
        return _Gates(tuple(patterns))
    if len(_gates) >= _MOST_GATES:
        _gates.clear()
    made = _gates[id(patterns)] = _Gates(patterns)
    return made


def find(text: str, patterns: Iterable[Pattern] = PATTERNS) -> list[Span]:
    """Personal data in `text`, in order and without overlap; positions are those of `text` as given."""
    folded, positions = fold(text)
    candidates = [
        Span(start, end, pattern.type, pattern.score)
        for pattern in _gates_of(patterns).open_for(folded)
        for start, end in matches(pattern, folded)
    ]
    if not candidates:
        return []
    return unfolded(resolve(candidates), positions)


def may_hold(texts: Iterable[str], patterns: tuple[Pattern, ...]) -> bool:
    """Whether there may be personal data in one of some texts, by one look at all of them one after the other."""
    return _gates_of(patterns).may_hold("\n".join([fold(text)[0] for text in texts]))


def unfolded(spans: list[Span], positions: list[int] | None) -> list[Span]:
    """Spans of a folded text as spans of the text that it was made from."""
    if positions is None:
        return spans
    return [Span(positions[s.start], positions[s.end - 1] + 1, s.type, s.score) for s in spans]


def resolve(candidates: Iterable[Span]) -> list[Span]:
    """Spans without overlap, in order: of those that overlap, the surer one stays, then the longer, then the first."""
    # In order and apart, so that only the neighbours have to be looked at: a text may hold a hundred thousand spans.
    chosen: list[Span] = []
    starts: list[int] = []
    for span in sorted(candidates, key=lambda s: (-s.score, s.start - s.end, s.start, s.type)):
        at = bisect_right(starts, span.start)
        if (at == 0 or chosen[at - 1].end <= span.start) and (at == len(chosen) or span.end <= chosen[at].start):
            chosen.insert(at, span)
            starts.insert(at, span.start)
    return chosen


StandIn = Callable[[str, str, str], str]
"""Of a type, a value and the type's placeholder, what takes the value's place."""


def replace(
    text: str,
    spans: Iterable[Span],
    placeholders: Mapping[str, str] = PLACEHOLDERS,
    stand_in: StandIn | None = None,
) -> str:
    """`text` with each span's placeholder or stand-in in its place; a Korean particle stays attached."""
    pieces, position = [], 0
    for span in spans:
        pieces.append(text[position : span.start])
        placeholder = placeholders.get(span.type, f"[{span.type}]")
        pieces.append(stand_in(span.type, text[span.start : span.end], placeholder) if stand_in else placeholder)
        position = span.end
    pieces.append(text[position:])
    return "".join(pieces)
