"""One text of an answer on its way to the client: what is let through of it, and when."""

from collections import Counter
from collections.abc import Callable

import regex

from images.gateway.guards import measures
from images.gateway.guards.judges import INLINE_CHARACTERS, Judges
from images.gateway.guards.personal_data import MAX_HELD, StreamMask, StreamMasker
from images.gateway.guards.verdict import Verdict, figure_of
from llmops_assets.specs.guards import OutputGuards

_SENTENCE_END = regex.compile(r"[.!?。！？…]+[\s\"'”’)\]]+|\n+|(?<=[다요죠까])[.!?]+(?=[가-힣])")
_REMEMBERED = 200
"""Characters already passed on that are judged with what follows: a word may span both."""
_MOST_JUDGED_AT_END = 256 * 1024


class Refused(Exception):
    """Nothing more of a text may be passed on."""


class Channel:
    """Feeds one text through the guards of its endpoint; `verdicts` is complete after `end` or a refusal.

    Personal data is masked before anything else sees the text. Where harm or language are judged, whole sentences are
    let through, of `MAX_HELD` characters at most. Guards that only flag hold nothing back.
    """

    _mask: StreamMask | None = None
    _masker: StreamMasker | None = None
    _held = _passed = ""
    _characters = _bytes = _kept = 0
    _long: str | None = None
    _is_cut = False

    def __init__(self, guards: OutputGuards, judges: Judges) -> None:
        self._guards = guards
        self._judges = judges
        self._verdicts: dict[str, Verdict] = {}
        personal = guards.personal_data
        if personal is not None and personal.action in ("mask", "refuse"):
            self._masker = judges.masker(names=personal.names)
        self._holds = guards.holds
        self._flags = guards.flags
        self._letters: dict[str, int] = {}
        self._whole: list[str] = []

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What each guard says of the text so far."""
        if self._characters and not self._is_cut:
            self._note("length", "pass", self._long, float(self._characters))
        return self._verdicts

    async def feed(self, text: str) -> str:
        """What of the text may be passed on once `text` has come. Refused when nothing more may be."""
        if self._guards.length is not None:
            text = self._within_length(text)
        if self._flags:
            self._keep(text)
        if self._masker is not None:
            if self._mask is None:
                self._mask = StreamMask(self._masker)
            # Without a thread there is nothing to wait for.
            is_dear = self._is_dear(len(text))
            text = await self._run(self._mask.feed, text) if is_dear else self._mask.feed(text)
            self._look_at_mask(self._mask.found)
        return await self._sentences(text, is_end=False) if self._holds else text

    async def whole(self, text: str) -> str:
        """What of a text that is whole may be passed on: what `feed` and `end` give together."""
        if self._guards.length is not None:
            text = self._within_length(text)
        if self._flags:
            self._keep(text)
        if (masker := self._masker) is not None:
            if self._is_dear(len(text)) or masker.may_find([text]):
                self._mask = StreamMask(masker)
                text = await self._run(self._mask.whole, text)
                self._look_at_mask(self._mask.found)
            else:
                self._look_at_mask(None)
        if self._holds and not self._is_plainly_allowed(text):
            text = await self._sentences(text, is_end=False) + await self._sentences("", is_end=True)
        if self._flags:
            await self._flag()
        return text

    def _is_plainly_allowed(self, text: str) -> bool:
        """Whether nothing but the language is judged, and every letter is of one that is allowed: then so is every
        sentence.
        """
        language = self._guards.language
        if language is None or language.action != "refuse" or not text:
            return False
        if (harm := self._guards.harm) is not None and harm.action == "refuse":
            return False
        found = measures.letters(text)
        if sum(found.values()) > sum([found[name] for name in language.allowed]):
            return False
        self._note("language", "pass", None, measures.language_share(language, found))
        return True

    async def end(self) -> str:
        """The rest of the text, and the verdicts of those that only flag."""
        rest = ""
        if self._mask is not None:
            rest = await self._judges.run(self._mask.end, is_dear=self._is_dear(MAX_HELD))
            self._look_at_mask(self._mask.found)
        out = await self._sentences(rest, is_end=True)
        if self._flags:
            await self._flag()
        return out

    @property
    def is_cut(self) -> bool:
        """Whether the text was longer than it may be; it ends where the limit is."""
        return self._is_cut

    def _is_dear(self, characters: int) -> bool:
        personal = self._guards.personal_data
        return characters > INLINE_CHARACTERS or (personal is not None and personal.names)

    async def _run(self, change: Callable[[str], str], text: str) -> str:
        return await self._judges.run(lambda: change(text), is_dear=self._is_dear(len(text)))

    def _note(self, guard: str, outcome: str, reason: str | None, figure: float | None) -> None:
        self._verdicts[guard] = Verdict(guard, "out", outcome, reason, figure_of(figure))  # type: ignore[arg-type]

    def _within_length(self, text: str) -> str:
        guard = self._guards.length
        if guard is None or not text:
            return text
        if self._is_cut:
            return ""
        characters, size = self._characters + len(text), self._bytes
        if guard.max_tokens is not None:
            size += len(text.encode("utf-8", "replace"))
        reason = measures.too_long(guard, characters, size)
        if reason is None or guard.action == "flag":
            # Its verdict is made once somebody asks: a stream has thousands of pieces.
            self._characters, self._bytes, self._long = characters, size, reason
            return text
        text = measures.fitting(guard, self._characters, self._bytes, text)
        self._is_cut = True
        self._note("length", "refuse", reason, float(characters))
        return text

    def _keep(self, text: str) -> None:
        if self._kept < _MOST_JUDGED_AT_END:
            self._whole.append(text)
            self._kept += len(text)

    def _look_at_mask(self, found: Counter[str] | None) -> None:
        personal = self._guards.personal_data
        if not found or personal is None:
            if "personal_data" not in self._verdicts:
                self._note("personal_data", "pass", None, 0.0)
            return
        reason = ", ".join(f"{kind} ×{count}" for kind, count in sorted(found.items()))
        self._note("personal_data", personal.action, reason, float(sum(found.values())))
        if personal.action == "refuse":
            raise Refused

    async def _sentences(self, text: str, *, is_end: bool) -> str:
        """What is let through of masked text: all of it, or the sentences that were judged."""
        if not self._holds:
            return text
        self._held += text
        cut = len(self._held) if is_end else self._sentence_cut()
        if not cut:
            return ""
        out, self._held = self._held[:cut], self._held[cut:]
        await self._judge(out)
        self._passed = (self._passed + out)[-_REMEMBERED:]
        return out

    def _sentence_cut(self) -> int:
        ends = [match.end() for match in _SENTENCE_END.finditer(self._held)]
        if ends:
            return ends[-1]
        if len(self._held) <= MAX_HELD:
            return 0
        space = self._held.rfind(" ", 0, len(self._held) - _REMEMBERED)
        return space + 1 if space > 0 else len(self._held) - _REMEMBERED

    async def _judge(self, text: str) -> None:
        harm, language = self._guards.harm, self._guards.language
        if harm is not None and harm.action == "refuse":
            groups = await self._offended(self._passed + text)
            self._note("harm", "refuse" if groups else "pass", ", ".join(groups) or None, float(len(groups)))
            if groups:
                raise Refused
        if language is not None and language.action == "refuse":
            found = measures.letters(text)
            self._letters = {name: count + self._letters.get(name, 0) for name, count in found.items()}
            share = measures.language_share(language, self._letters)
            alone = measures.language_share(language, found)
            lowest = min((s for s in (share, alone) if s is not None), default=None)
            if lowest is not None and lowest < language.min_share:
                self._note("language", "refuse", _share_reason(language.allowed, lowest), lowest)
                raise Refused
            self._note("language", "pass", None, lowest)

    async def _offended(self, text: str) -> list[str]:
        is_dear = self._judges.harm_is_dear or len(text) > INLINE_CHARACTERS
        return (await self._judges.run(lambda: self._judges.harm([text]), is_dear=is_dear))[0]

    async def _flag(self) -> None:
        """Judge by the guards that only flag, once the text is whole."""
        guards, text = self._guards, "".join(self._whole)
        if guards.personal_data is not None and guards.personal_data.action == "flag":
            masker = self._judges.masker(names=guards.personal_data.names)
            found = (await self._judges.run(lambda: masker.mask(text), is_dear=self._is_dear(len(text)))).found
            reason = ", ".join(f"{kind} ×{count}" for kind, count in sorted(found.items())) or None
            self._note("personal_data", "pass", reason, float(found.total()))
        if guards.harm is not None and guards.harm.action == "flag":
            groups = await self._offended(text)
            self._note("harm", "pass", ", ".join(groups) or None, float(len(groups)))
        if guards.language is not None and guards.language.action == "flag":
            share = measures.language_share(guards.language, measures.letters(text))
            is_low = share is not None and share < guards.language.min_share
            reason = _share_reason(guards.language.allowed, share) if is_low and share is not None else None
            self._note("language", "pass", reason, share)


def _share_reason(allowed: list[str], share: float) -> str:
    return f"{share:.0%} of the letters are of {' or '.join(allowed)}"
