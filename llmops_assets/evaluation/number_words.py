"""Numbers written in words: Sino-Korean (오만), native Korean (스물다섯), English (twenty-five)."""

import re
from fractions import Fraction

SMALL = {"십": 10, "백": 100, "천": 1000}
BIG = {"만": 10**4, "억": 10**8, "조": 10**12, "경": 10**16}
_SINO = {c: n for n, c in enumerate("영일이삼사오육칠팔구")} | {"공": 0}
_TENS = {
    "열": 10,
    "스물": 20,
    "스무": 20,
    "서른": 30,
    "마흔": 40,
    "쉰": 50,
    "예순": 60,
    "일흔": 70,
    "여든": 80,
    "아흔": 90,
}
_ONES = {
    "하나": 1,
    "한": 1,
    "둘": 2,
    "두": 2,
    "셋": 3,
    "세": 3,
    "넷": 4,
    "네": 4,
    "다섯": 5,
    "여섯": 6,
    "일곱": 7,
    "여덟": 8,
    "아홉": 9,
}
_ENGLISH = {
    word: n
    for n, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
} | {
    word: 10 * n
    for n, word in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_COUNTER = (
    "원|개월|개|명|살|세|년|월|일|분|시간|시|초|도|퍼센트|프로|번째|번|층|킬로|미터|마리|장|대|병|잔|권|가지|점|배"
    "|달러|위안|유로|쪽|회"
)
_ENDING = r"(?:입니다|이에요|예요|이다|임|이고|이며|이죠|이야|이요|요)?"
_AFTER = rf"(?=\s?(?:{_COUNTER})|{_ENDING}\s*(?:[.,!?)。]|\s|$))"
_NATIVE = f"(?:{'|'.join(_TENS)})(?:{'|'.join(_ONES)})?|{'|'.join(_ONES)}"
_SINO_RUN = r"[일이삼사오육칠팔구]?[십백천만억조](?:\s?[일이삼사오육칠팔구십백천만억조])"
STRONG = re.compile(
    rf"(?<![가-힣A-Za-z0-9])(?P<sino>{_SINO_RUN}*(?=\s?(?:원|명|달러|위안|유로))"
    rf"|{_SINO_RUN}+(?=\s?(?:개|퍼센트|킬로|미터|점|배)))"
)
"""A number in words that no other word looks like: with a magnitude, and what it counts behind it."""
_WEAK = re.compile(
    rf"(?<![가-힣A-Za-z])(?:(?P<sino>[영공일이삼사오육칠팔구십백천만억조]+(?:\s[일이삼사오육칠팔구십백천만억]+)*)"
    rf"|(?P<native>{_NATIVE})(?!도)){_AFTER}"
)
_MARKED = re.compile(r"(?:정답|답|결과)\s?(?:은|는|:)?\s*$")
_ENGLISH_RUN = re.compile(
    rf"(?<![A-Za-z])(?:(?:a|and|hundred|{'|'.join([*_ENGLISH, *_SCALES])})(?![A-Za-z])[\s-]*)+", re.IGNORECASE
)


def in_words(text: str) -> list[tuple[int, int, Fraction]]:
    """(start, end, value) of the numbers in words of a text that holds no digits.

    A single syllable, which is as often another word (이, 일, 한), counts only where it is all that is said, or follows
    "정답은".
    """
    found: list[tuple[int, int, Fraction]] = []
    for m in _WEAK.finditer(text):
        value = _sino(m["sino"]) if m["sino"] else _native(m["native"])
        alone = not text[: m.start()].strip(" \n\"'(*") or _MARKED.search(text[: m.start()])
        if value is not None and (len(m[0]) > 1 or alone):
            found.append((m.start(), m.end(), Fraction(value)))
    for m in _ENGLISH_RUN.finditer(text):
        value = _english(re.findall("[a-z]+", m[0].lower()))
        if value is not None:
            found.append((m.start(), m.start() + len(m[0].rstrip(" -\n")), Fraction(value)))
    return sorted(found)


def strong(text: str) -> list[tuple[int, int, Fraction]]:
    """(start, end, value) of Sino-Korean numbers that count as such beside digits too, as in 오만 원."""
    found = ((m.start(), m.end(), _sino(m["sino"])) for m in STRONG.finditer(text))
    return [(start, end, Fraction(value)) for start, end, value in found if value is not None]


def scaled(parts: list[Fraction | str]) -> Fraction | None:
    """The value of digits and magnitudes in a row, 3 만 5 천: 35,000; None where they are in no order."""
    total, section, current, last = Fraction(0), Fraction(0), None, 10**20
    for part in parts:
        if isinstance(part, Fraction):
            if current is not None:
                return None
            current = part
        elif part in SMALL:
            section += (Fraction(1) if current is None else current) * SMALL[part]
            current = None
        else:
            amount = section + (current or 0)
            if BIG[part] >= last:
                return None
            total += (amount if section or current is not None else Fraction(1)) * BIG[part]
            section, current, last = Fraction(0), None, BIG[part]
    return total + section + (current or 0)


def _sino(word: str) -> Fraction | None:
    word = re.sub(r"\s", "", word)
    if not any(c in SMALL or c in BIG for c in word):
        # 일이삼 is no number but digits read out: one alone is.
        return Fraction(_SINO[word]) if len(word) == 1 else None
    return scaled([Fraction(_SINO[c]) if c in _SINO else c for c in word])


def _native(word: str) -> int | None:
    for tens, value in _TENS.items():
        if word.startswith(tens):
            rest = word[len(tens) :]
            return value + (_ONES[rest] if rest else 0)
    return _ONES.get(word)


def _english(words: list[str]) -> int | None:
    if not any(word in _ENGLISH for word in words) and not (set(words) & {*_SCALES, "hundred"} and len(words) > 1):
        return None
    total, current = 0, 0
    for word in words:
        if word in _ENGLISH:
            current += _ENGLISH[word]
        elif word == "hundred":
            current = (current or 1) * 100
        elif word in _SCALES:
            total, current = total + (current or 1) * _SCALES[word], 0
    return total + current
