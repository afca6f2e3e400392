"""Personal data in requests and answers, found by the recognizers of the policy, also where it comes in pieces."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from re import _parser as widths

import regex

from llmops_assets.privacy import masking
from llmops_assets.privacy.masker import Masked, Masker
from llmops_assets.privacy.masking import NEAR, Span
from llmops_assets.privacy.pattern import Pattern, fold, superset
from llmops_assets.privacy.pii import ROUNDS, Detector
from llmops_assets.privacy.prefilter import unfinished

MAX_HELD = 1024
"""Characters of an answer that are held back at most: no shape of personal data is longer."""
_CONTEXT = 160
"""Characters already passed on that are looked at with what follows: labels, and words near a value."""
_BEHIND = 12
"""Characters behind a value that may still say that it is none (a unit, one more digit)."""
_WINDOW = 16 * 1024
_SENTENCE_END = regex.compile(r"[.!?。！？…\n]\s|\n")
# A text never holds it: what must be followed by it is found in part only, which is all that is asked.
_NEVER = "\x00"


class StreamMasker(Masker):
    """Masks whole texts and streams of one endpoint; safe to use from several threads."""

    def __init__(self, detector: Detector, *, names: bool = False) -> None:
        super().__init__(detector, names=names)
        self._unfinished = _unfinished(self.patterns)
        self._near = tuple(pattern for pattern in self.patterns if pattern.context)

    def may_find(self, texts: Sequence[str]) -> bool:
        """Whether there may be any in one of some texts; nearly always there is none, and one look says so."""
        return self.names is not None or masking.may_hold(texts, self.patterns)

    def mask(self, text: str) -> Masked:
        """A whole text; a long one is gone through in windows, so that no single search holds the interpreter long."""
        if len(text) <= _WINDOW:
            return super().mask(text)
        stream = StreamMask(self)
        pieces = [stream.feed(text[start : start + _WINDOW]) for start in range(0, len(text), _WINDOW)]
        return Masked("".join([*pieces, stream.end()]), stream.found)

    def unfinished(self, text: str) -> int:
        """Where at the end of `text` personal data may have begun that is not complete yet; its length if nowhere."""
        folded, positions = fold(text.replace(_NEVER, " "))
        at = self._unfinished(folded)
        for pattern in self._near:
            # A word that makes it personal data may follow yet.
            for start, end in _raw_matches(pattern, folded):
                if end + NEAR > len(folded):
                    at = min(at, start)
        return at if positions is None else positions[at]


def _raw_matches(pattern: Pattern, text: str) -> list[tuple[int, int]]:
    compiled, _ = masking._compiled(pattern.expression, pattern.unless)
    return [match.span("span") for match in compiled.finditer(text)]


@lru_cache(16)
def _unfinished(patterns: tuple[Pattern, ...]) -> Callable[[str], int]:
    """What says where the value of some pattern may begin and go on behind the end of a text; its length if nowhere.

    What surrounds a value is left out, and so are the upper bounds of repetitions: it is found too often, never too
    rarely.
    """
    automaton = unfinished(tuple(pattern.body for pattern in patterns))
    if automaton is None:
        return _in_part(patterns)

    def found(text: str) -> int:
        try:
            match = automaton.search(text)
        except UnicodeEncodeError:
            # Half a character, which the automaton does not read.
            return _in_part(patterns)(text)
        return len(text) if match is None else match.start()

    return found


@lru_cache(16)
def _in_part(patterns: tuple[Pattern, ...]) -> Callable[[str], int]:
    """The same at a hundred times the cost, by a module that finds expressions in part."""
    bodies = "|".join(f"(?:{superset(pattern.body)})" for pattern in patterns)
    expression = regex.compile(f"(?:{bodies}){_NEVER}", regex.V0)

    def found(text: str) -> int:
        match = expression.search(text, partial=True)
        return len(text) if match is None else match.start()

    return found


def longest(patterns: Sequence[Pattern]) -> int:
    """Characters of the longest value that the patterns without an open end can have."""
    found = [widths.parse(pattern.body).getwidth()[1] for pattern in patterns]
    return max((width for width in found if width < widths.MAXREPEAT), default=0)


class StreamMask:
    """One text that comes in pieces, passed on without its personal data, in order.

    What `feed` and `end` give together is what the text is masked as when it is whole, however it was cut; a value
    that is not complete is held back, of `MAX_HELD` characters at most.
    """

    def __init__(self, masker: StreamMasker) -> None:
        self._masker = masker
        self._held = ""
        self._before = ""
        self._before_masked = ""
        self.found: Counter[str] = Counter()

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def feed(self, text: str) -> str:
        """What may be passed on once `text` has come."""
        self._held += text
        return self._out(self._cut())

    def whole(self, text: str) -> str:
        """The same for a text that comes at once: nothing has to be held back."""
        if len(text) > _WINDOW:
            return self.feed(text) + self.end()
        masked = self._masker.mask(text)
        if masked.found:
            self.found.update(masked.found)
        return masked.text

    def end(self) -> str:
        """The rest."""
        return self._out(len(self._held), is_end=True)

    def _cut(self) -> int:
        """How much of what is held is complete."""
        held = self._held
        cut = self._masker.unfinished(held[-MAX_HELD:]) + max(0, len(held) - MAX_HELD)
        if self._masker.names is not None:
            ends = [match.end() for match in _SENTENCE_END.finditer(held)]
            cut = min(cut, ends[-1] if ends else 0)
        return max(cut, len(held) - MAX_HELD)

    def _out(self, cut: int, *, is_end: bool = False) -> str:
        if cut <= 0:
            return ""
        held, context = self._held, len(self._before)
        spans = self._behind(context, self._masker.spans(self._before + held))
        if not is_end:
            for span in spans:
                if span.start < cut and (span.end > cut or span.end + _BEHIND > len(held)):
                    cut = span.start
                    break
        if cut <= 0:
            return ""
        spans = [span for span in spans if span.end <= cut]
        self.found.update(span.type for span in spans)
        raw, self._held = held[:cut], held[cut:]
        if not spans and cut == len(held) and self._before == self._before_masked:
            # The text that was just looked at.
            out = raw
        else:
            out = self._again(masking.replace(raw, spans, self._masker.placeholders))
        self._before = (self._before + raw)[-_CONTEXT:]
        self._before_masked = (self._before_masked + out)[-_CONTEXT:]
        return out

    def _again(self, text: str) -> str:
        """What only shows once what stands before it is masked."""
        for _ in range(ROUNDS):
            context = len(self._before_masked)
            spans = self._behind(context, self._masker.spans(self._before_masked + text))
            if not spans:
                break
            self.found.update(span.type for span in spans)
            text = masking.replace(text, spans, self._masker.placeholders)
        return text

    @staticmethod
    def _behind(context: int, spans: list[Span]) -> list[Span]:
        """Of spans in a text behind `context` characters of another, those in the text, by its own positions."""
        return [Span(max(s.start - context, 0), s.end - context, s.type, s.score) for s in spans if s.end > context]
