"""Says reasons that operations give in English in the language of a page: by their templates, arguments and all.

Operations, checks and records write a reason once, as text: it is in the log, the audit line and the catalog, and some
were written by an earlier version. So it is recognised here by its template, and its arguments are put into that of the
other language. What no template fits stays English, and is marked so for screen readers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

import yaml
from markupsafe import Markup, escape

from images.console.web.i18n import LOCALE, STATES, translations

_FIELD = re.compile(r"\{(\w+)\}")
_LATIN, _HANGUL = re.compile("[A-Za-z]"), re.compile("[가-힣]")
_LONGEST = 4000
"""Characters of a reason that is looked at; a longer one is a log."""
_PLACE = re.compile(r"(?P<place>[^\s:]{1,200}): (?P<rest>.+)", re.S)
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z'])")
"""Between two sentences."""


@dataclass(frozen=True)
class _Template:
    """An English template in pieces: its words, and the names of the fields between them; and the other one."""

    words: tuple[str, ...]
    fields: tuple[str, ...]
    other: str

    def match(self, text: str) -> dict[str, str] | None:
        """What stands in its fields, each as short as can be; None where it does not fit.

        In one pass over the text: an expression with several fields would try every split of it.
        """
        first, last = self.words[0], self.words[-1]
        if not self.fields:
            return {} if text == first else None
        if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
            return None
        end, at = len(text) - len(last), len(first)
        values: dict[str, str] = {}
        for name, word in zip(self.fields, (*self.words[1:-1], None), strict=True):
            to = end if word is None else text.find(word, at + 1, end)
            if to <= at or not _may_stand(name, text[at:to]):
                return None
            values[name] = text[at:to]
            at = to + len(word or "")
        return values


def _may_stand(name: str, value: str) -> bool:
    """Whether a field may be that: `s…` is a state, `w…` one word, `t…` a reason, any other has no sentence's end."""
    if name.startswith("s"):
        return value in STATES
    if name.startswith("w"):
        return not any(letter.isspace() for letter in value)
    return name.startswith("t") or not _SENTENCE.search(value)


@cache
def templates(language: str) -> dict[str, str]:
    """The templates of a language by the English ones; none for English itself."""
    file = LOCALE / f"reasons.{language}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}


@cache
def _compiled(language: str) -> list[_Template]:
    known = templates(language)
    # The one with most words of its own says what a reason is; one with few would fit nearly everything.
    order = sorted(known, key=lambda text: -len(_FIELD.sub("", text)))
    parts = [(_FIELD.split(text), known[text]) for text in order]
    return [_Template(tuple(one[::2]), tuple(one[1::2]), other) for one, other in parts]


@lru_cache(4096)
def translated(text: str, language: str) -> str | None:
    """A reason in a language; None where no template fits it."""
    if language == "en":
        return text
    if len(text) > _LONGEST:
        return None
    stripped = text.strip()
    if "\n" in stripped:
        return _joined(stripped.split("\n"), "\n", language)
    return _whole(stripped, language) or _placed(stripped, language)


def _whole(text: str, language: str) -> str | None:
    for form in (text, text.removesuffix(".")):
        for one in _compiled(language):
            if (found := one.match(form)) is not None:
                return _filled(one.other, _arguments(found, language))
    sentences = _SENTENCE.split(text)
    return _joined(sentences, " ", language) if len(sentences) > 1 else None


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda field: values.get(field[1], field[0]), template)


def _placed(text: str, language: str) -> str | None:
    """A fault with the field that it is about: `hyperparams.lr: …`."""
    found = _PLACE.fullmatch(text)
    said = found and (_whole(found["rest"], language) or _placed(found["rest"], language))
    return f"{found['place']}: {said}" if found and said else None


def _joined(parts: list[str], by: str, language: str) -> str | None:
    """All parts where each is known: half a reason in another language would be none."""
    found = [translated(part, language) for part in parts if part.strip()]
    if any(one is None for one in found):
        return None
    ended = [one if one.endswith((".", "?", "!", "요")) else f"{one}." for one in found if one]
    return by.join(ended if by == " " else [one for one in found if one])


def _arguments(found: Mapping[str, str], language: str) -> dict[str, str]:
    values = dict[str, str]()
    for name, value in found.items():
        if name.startswith("s") and value in STATES:
            value = translations(language).gettext(STATES[value])
        elif name.startswith("t"):
            value = translated(value, language) or value
        values[name] = value
    return values


def said(text: object, language: str, longest: int | None = None) -> Markup:
    """A reason for a page, cut to `longest` characters; one that is not known in its language is marked as English."""
    if text is None or text == "":
        return Markup()
    given = str(text)
    known = translated(given, language)
    shown = given if known is None else known
    if longest is not None and len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    # What a page wrote in its own language comes here too.
    is_english = known is None and len(_LATIN.findall(given)) > len(_HANGUL.findall(given))
    return Markup('<span lang="en">{}</span>').format(shown) if is_english else escape(shown)
