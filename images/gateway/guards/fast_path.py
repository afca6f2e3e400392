"""Passes at once what plainly offends no guard, as nearly all requests and answers do; the guards judge the rest.

Never more is passed than the guards would, and with the same verdicts: of a text of ASCII, Hangul syllables and some
signs, what they count follows from its UTF-8 bytes, and one automaton each says of all its parts together that no
pattern of personal data and no rule of injection can match.
"""

import re
from collections.abc import Sequence
from typing import Any

from images.gateway.guards import measures, normalise
from images.gateway.guards.injection_rules import may_match
from images.gateway.guards.judges import INLINE_CHARACTERS, Judges
from images.gateway.guards.texts import Found, alone
from images.gateway.guards.verdict import Verdict, figure_of
from llmops_assets.specs.guards import InputGuards, LanguageGuard, OutputGuards

_SIGNS = "“”‘’·…、。「」『』《》〈〉→※₩"
"""Signs that are common in Korean texts. They are no letters, stand for none, and nothing is written with them."""
_PLAIN = re.compile("[\x00-\x7f가-힣]*")
_NEARLY_PLAIN = re.compile(f"[\x00-\x7f가-힣{_SIGNS}]*")
_SIGN = re.compile(f"[{_SIGNS}]")
_ASCII = bytes(range(128))


def _but(wanted: str) -> bytes:
    """All bytes but those of a class of ASCII: what is deleted to keep these alone."""
    return bytes(code for code in range(256) if code > 127 or re.match(wanted, chr(code)) is None)


_BUT_LETTERS = _but("[A-Za-z]")
_BUT_FIGURES, _BUT_ESCAPES = _but(normalise.FIGURES), _but(r"[%&\\]")
_ESCAPES = re.compile(normalise.ESCAPES.pattern.encode())
_BUT_BASE64 = _but("[A-Za-z0-9+/_-]")
_SQUEEZED_AWAY = bytes(code for code in _ASCII if normalise.squeezed(chr(code)) == "")
_ROT13 = bytes(ord(chr(code).translate(normalise.ROT13)) for code in _ASCII) + bytes(range(128, 256))


class Plain:
    """A text in UTF-8 (`written`), and with blanks for its signs (`data`); `korean` and `latin` are its letters.

    Rules of injection disregard signs. Patterns of personal data may ask for one.
    """

    __slots__ = ("data", "korean", "latin", "written")

    def __init__(self, text: str, written: bytes | None = None) -> None:
        self.data = data = text.encode()
        self.written = data if written is None else written
        self.korean = (len(data) - len(text)) // 2
        self.latin = len(data.translate(None, _BUT_LETTERS))

    @property
    def letters(self) -> dict[str, int]:
        return {"ko": self.korean, "en": self.latin, "other": 0}

    def forms(self) -> bytes | None:
        """What `normalise.forms` gives, one form after the other; None where a disguise has to be looked for."""
        data = self.data
        if data.translate(None, _BUT_ESCAPES) and _ESCAPES.search(data) is not None:
            return None
        if self.latin:
            if data.translate(None, _BUT_FIGURES):
                return None
            data = data.lower()
        # Hexadecimal needs more.
        if len(data.translate(None, _BUT_BASE64)) >= normalise.FEWEST_BASE64:
            return None
        squeezed = data.translate(None, _SQUEEZED_AWAY)
        forms = squeezed + b"\n" + squeezed.decode()[::-1].encode()
        # The characters that are left of it are its letters, and what else is not squeezed away.
        if self.latin and 2 * self.latin > len(squeezed) - 2 * self.korean:
            forms += b"\n" + squeezed.translate(_ROT13)
        return forms


def plain(text: str) -> Plain | None:
    """A text as it is looked at here; None where it has other characters."""
    if _PLAIN.fullmatch(text) is not None:
        return Plain(text)
    return Plain(_SIGN.sub(" ", text), text.encode()) if _NEARLY_PLAIN.fullmatch(text) is not None else None


def request_verdicts(guards: InputGuards, judges: Judges, found: Found, query: str) -> list[Verdict] | None:
    """The verdicts on the texts of a request (`texts.texts`) that offends nothing; None where it has to be judged.

    `query` is what the language is judged by. The texts are few: who calls sees to it.
    """
    personal, injection = guards.personal_data, guards.injection
    if (
        guards.harm is not None
        or (personal is not None and personal.names)
        or (injection is not None and injection.classifier)
    ):
        return None
    verdicts: list[Verdict] = []
    if (length := guards.length) is not None:
        texts = alone(found)
        characters = sum(map(len, texts))
        size = 0 if length.max_tokens is None else sum([len(text.encode("utf-8", "replace")) for text in texts])
        if measures.too_long(length, characters, size) is not None:
            return None
        verdicts.append(Verdict("length", "in", "pass", None, float(characters)))
    looked: list[Plain] = []
    of_query: Plain | None = None
    for path, text in found:
        if (one := plain(text)) is None or path.endswith(".arguments"):
            return None
        if text is query:
            of_query = one
        looked.append(one)
    if (language := guards.language) is not None:
        if of_query is None and (of_query := plain(query)) is None:
            return None
        share = measures.language_share(language, of_query.letters)
        if share is not None and share < language.min_share:
            return None
        verdicts.append(Verdict("language", "in", "pass", None, figure_of(share)))
    if personal is not None:
        if judges.masker(names=False).may_hold(b"\n".join([one.written for one in looked])):
            return None
        verdicts.append(_NO_PERSONAL_DATA["in"])
    if injection is not None:
        forms = [one.forms() for one in looked]
        if None in forms or may_match(b"\n".join(forms)):  # type: ignore[arg-type]
            return None
        verdicts.append(_NO_INJECTION)
    return verdicts


def answer_verdicts(guards: OutputGuards, judges: Judges, message: dict[str, Any]) -> Sequence[Verdict] | None:
    """The verdicts on a message of an answer that is nothing but a text which offends nothing; None where it is judged.

    None too where guards only flag: they look at the whole of what was said.
    """
    text = message.get("content")
    personal, language, length = guards.personal_data, guards.language, guards.length
    if (
        type(text) is not str
        or not 0 < len(text) <= INLINE_CHARACTERS
        or guards.harm is not None
        or (personal is not None and (personal.names or personal.action == "flag"))
        or (language is not None and language.action == "flag")
        or (one := plain(text)) is None
    ):
        return None
    for name, value in message.items():
        # Whatever else servers write has nothing to judge only where it is empty.
        if name not in _NO_WORDS and not (value is None or value == []):
            return None
    verdicts = []
    if personal is not None:
        if judges.masker(names=False).may_hold(one.written):
            return None
        verdicts.append(_NO_PERSONAL_DATA["out"])
    if language is not None:
        if not _speaks_nothing_else(language, one):
            return None
        verdicts.append(Verdict("language", "out", "pass", None, figure_of(_share(language, one))))
    if length is not None:
        size = 0 if length.max_tokens is None else len(text.encode())
        if measures.too_long(length, len(text), size) is not None:
            return None
        verdicts.append(Verdict("length", "out", "pass", None, float(len(text))))
    return verdicts


_NO_PERSONAL_DATA = {side: Verdict("personal_data", side, "pass", None, 0.0) for side in ("in", "out")}
_NO_INJECTION = Verdict("injection", "in", "pass", None, 0.0)
_NO_WORDS = frozenset(("content", "role"))


def _speaks_nothing_else(guard: LanguageGuard, one: Plain) -> bool:
    """Whether every letter is of an allowed language: then each sentence is."""
    allowed = guard.allowed
    return (not one.korean or "ko" in allowed) and (not one.latin or "en" in allowed)


def _share(guard: LanguageGuard, one: Plain) -> float | None:
    return measures.language_share(guard, one.letters)
