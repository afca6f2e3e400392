"""Reads which option of a multiple-choice question an answer names: its letter, its number, or its words."""

import re
import unicodedata
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKER = re.compile(
    r"####\s*|(?:최종\s?)?(?:정답|(?<![가-힣])답)\s?(?:은|는|:|=)?\s*|(?:(?:final|correct)\s+)?(?:answer|option|choice)\s*(?:is|:|=)\s*",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox|text|mathrm|textbf)\s*\{([^{}]*)\}")
_DENIED = re.compile(
    r"\W{0,2}(?:번)?(?:이|가|은|는)?\s?(?:아니|아닙|아닌)|\W{0,2}\s+is\s+(?:not|wrong|incorrect)", re.IGNORECASE
)
_AFTER_DENIAL = re.compile(r"\b(?:not|isn't)\s+\(?$", re.IGNORECASE)


def shown(question: str, choices: Sequence[str]) -> str:
    """The question with its options behind letters, a line each, as MMLU is asked."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question.rstrip(), *lines])


def lists_options(question: str, letters: Sequence[str]) -> bool:
    """Whether a question shows an option behind each of the letters: A. …, (B) …, C) …, D: …."""
    return all(re.search(rf"(?:^|[\s(\[]){letter}\s?[.):\]．]\s*\S", question) for letter in letters)


def letter_of(answer: str, choices: Sequence[str], count: int | None = None) -> str | None:
    """The letter that `answer` decides for among `choices` (or the first `count` letters), or None: none, or several.

    Behind "정답은" or "The answer is" it counts before any other place; a letter that is denied does not count. The
    options' own words stand for their letters where the answer is nothing else.
    """
    options = LETTERS[: count or len(choices)]
    text = unicodedata.normalize("NFKC", _BOXED.sub(r"\1", answer)).replace("*", "").replace("`", "").strip()
    words = {
        unicodedata.normalize("NFKC", choice).strip(): letter for letter, choice in zip(options, choices, strict=False)
    }
    stripped = text.rstrip(". \n")
    if text in words or stripped in words:
        return words.get(text) or words.get(stripped)
    for marker in reversed(list(_MARKER.finditer(text))):
        rest = text[marker.end() :].split("\n", 1)[0] or text[marker.end() :].lstrip().split("\n", 1)[0]
        named = _named(rest, options, marked=True)
        if named:
            return named[0] if len(set(named[:2])) == 1 or not _joined(rest) else None
        if (stated := rest.strip().rstrip(". ")) in words:
            return words[stated]
    first = re.match(rf"\(?([{options}{options.lower()}])(?:[).:\]]|번|$|\n)(?!\w)|([1-9])(?:번|[.)]\s|$)", text)
    if first is not None and not _DENIED.match(text, first.end(first.lastindex or 0)) and not _joined(text):
        return _letter(first[1] or first[2], options)
    named = _named(text, options, marked=False)
    return named[0] if len(set(named)) == 1 else None


def _letter(sign: str, options: str) -> str | None:
    if sign.isdigit():
        return options[int(sign) - 1] if 1 <= int(sign) <= len(options) else None
    return sign.upper() if sign.upper() in options else None


def _joined(text: str) -> bool:
    """Whether two options are named as one answer: A or B, A와 B, (A), (B)."""
    return bool(
        re.match(r"\W{0,3}[A-Za-z1-9]\)?(?:\s*(?:,|/|&|와|과|이나|나|또는|및)\s*|\s+(?:or|and)\s+)\(?[A-Z1-9]\b", text)
    )


def _named(text: str, options: str, *, marked: bool) -> list[str]:
    lower = options.lower() if marked else ""
    pattern = rf"(?<![A-Za-z0-9'])([{options}{lower}])(?![A-Za-z0-9'])|(?<![\d.,])([1-9])(?=번)" + (
        r"|(?<![\d.,A-Za-z])([1-9])(?=\s*(?:[.)]|입니다|이다|예요|이에요|$))" if marked else ""
    )
    found = []
    for m in re.finditer(pattern, text):
        sign = next(group for group in m.groups() if group)
        # "A car" and "I think" begin with words, not with options.
        article = (
            sign in "AIa"
            and re.match(r"\s+[a-z]", text[m.end() :])
            and not re.match(r"\s+(?:is|or|and)\b", text[m.end() :])
        )
        if article or _DENIED.match(text, m.end()) or _AFTER_DENIAL.search(text[: m.start()]):
            continue
        if (letter := _letter(sign, options)) is not None:
            found.append(letter)
    return found
