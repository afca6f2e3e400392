"""The quantities in a text: numbers, fractions, ranges, dates, times and codes, each read as a whole."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from llmops_assets.evaluation import number_words, units

Kind = Literal["number", "range", "date", "time", "code"]


@dataclass(frozen=True)
class Quantity:
    """One quantity and where it stands.

    `parts` is the value of a number, the two ends of a range, (year, month, day) of a date with None for what is not
    given, (hour, minute, second) of a time, and the numerals of a code (a telephone number, a version). `unit` is as
    written. `written_hour` is what a clock of 12 hours showed.
    """

    kind: Kind
    parts: tuple[Fraction | int | str | None, ...]
    start: int
    end: int
    unit: str | None = None
    half: bool = False
    written_hour: int | None = None
    bound: str | None = None

    @property
    def value(self) -> Fraction:
        return self.parts[0] if isinstance(self.parts[0], Fraction) else Fraction(self.parts[0] or 0)


_DASHES = dict.fromkeys(map(ord, "−–—‐‑‒―﹣－"), "-") | dict.fromkeys(map(ord, "〜∼～"), "~") | {ord("×"): "*"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")


def prepared(text: str) -> str:
    """`text` in one spelling: compatibility forms, dashes, superscripts, LaTeX and Markdown written plainly."""
    text = re.sub("(?<=[0-9])(?=[¼-¾⅐-⅞])", " ", text)
    text = re.sub("[¼-¾⅐-⅞]", lambda m: f"{unicodedata.normalize('NFKC', m[0]).replace('⁄', '/')} ", text)
    text = re.sub("[⁰¹²³⁴-⁹⁻⁺]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text)
    text = re.sub(r"(?<=\d)[\u00a0\u202f\u2009\u2007](?=\d{3}(?!\d))", ",", text)
    # The SI's spelling of a million; one group alone may be two numbers.
    text = re.sub(r"(?<![\d.,])\d{1,3}(?: \d{3}){2,}(?![\d.,]\d|\d)", lambda m: m[0].replace(" ", ","), text)
    text = unicodedata.normalize("NFKC", text).translate(_DASHES).replace("⁄", "/")
    text = "".join(str(unicodedata.digit(c)) if c.isdecimal() and not c.isascii() else c for c in text)
    text = text.replace("{,}", ",").replace("\\,", "").replace("\\!", "").replace("\\ ", " ")
    text = re.sub(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|(\d))\s*(?:\{([^{}]*)\}|(\d))", _fraction_of_latex, text)
    text = re.sub(r"\\(?:text|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\(?:times|cdot)\b", "*", text)
    text = re.sub(r"\^\s*\{\s*\\?(circ)\s*\}|\^\s*\\circ", "도", text)
    text = re.sub(r"\^\s*\{\s*([+-]?\d+)\s*\}", r"^\1", text)
    # The answer in a box is what GSM8K writes behind four hashes.
    text = re.sub(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}", r"\n#### \1\n", text)
    text = re.sub(r"\\[\[\]()]|\\left|\\right", " ", text).replace("\\%", "%").replace("\\$", "$")
    text = re.sub(r"\$(?=\S)([^$\n]*?\S)\$(?!\d)", r" \1 ", text)
    text = re.sub(r"(?<!\d)\*\*|\*\*(?!\d)|`|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", "", text)
    text = re.sub(r"(?<=\d)\*\*(?=\d)", "^", text)
    text = re.sub(r"(?m)^\s*(?:[-*•]\s+|\d{1,2}[.)]\s+(?=\D*[A-Za-z가-힣]))", "", text)
    text = re.sub(r"(?:마이너스|영하|음수|\b(?:minus|negative))\s?(?=[\d.])", " -", text, flags=re.IGNORECASE)
    text = re.sub(r"[(\[{][-+\d.,\s]+[)\]}]", _parted, text)
    return re.sub(r"(?<=\d)_(?=\d{3}(?!\d))", ",", text)


def _parted(m: re.Match[str]) -> str:
    """A list or a point in brackets with a space behind its commas, unless they part thousands: (3,5), no (1,000)."""
    inside = m[0]
    if re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", inside[1:-1].strip()):
        return inside
    return re.sub(r",(?=\S)", ", ", inside)


def _fraction_of_latex(m: re.Match[str]) -> str:
    return f" {(m[1] or m[2] or '').strip()}/{(m[3] or m[4] or '').strip()} "


_PLAIN = (
    r"(?:\d{1,3}(?:[,'’]\d{3})+(?:\.\d+)?(?![\d])|\d{1,3}(?:,\d{2})+,\d{3}(?:\.\d+)?(?!\d)"
    r"|\d{1,3}(?:\.\d{3})+,\d+(?!\d)|\d{1,3}(?:\.\d{3}){2,}(?![\d.])|\d+\.\d+|(?<!\d)\.\d+|\d+)"
)
_POWER = r"(?:[eE][+-]?\d+(?![A-Za-z0-9])|\s?[*xX]\s?10\s?\^\s?\(?[+-]?\d+\)?|\^\s?\(?[+-]?\d+\)?)"
_MAGNITUDE = r"(?:\s?[십백천만억조](?!분|점|[가-힣]*\s?법))"
_ENGLISH_SCALE = r"(?:\s?(?:thousand|million|billion|trillion)\b|[kK](?![A-Za-z0-9]))"
_AMOUNT = rf"{_PLAIN}(?:{_POWER}|{_ENGLISH_SCALE}|{_MAGNITUDE}+(?:\s?{_PLAIN}{_MAGNITUDE}+)*(?:\s?\d[\d,]*(?![\d.]))?)?"
# A sign belongs to a number where nothing stands before it that it could be taken from: 10-20 is no -20.
_SIGN = r"(?:(?<![\w)\]%.])[-+]|(?<=[=(:])\s?-\s|^\s*-\s)"
_GLUED = r"(?<![A-Za-z\d.^_\\])(?<![A-Za-z]-)(?<!\d[,.])"
_SIGNED = (
    rf"(?P<sign>{_SIGN})?(?P<pre>{units.PREFIX})?(?P<sign2>(?<=[₩$¥€£])-)?(?P<amount>{_AMOUNT})"
    rf"(?P<unit>{units.SUFFIX})?"
)
_NUMBER = re.compile(rf"(?:{_GLUED}|(?<=KRW)|(?<=USD)|(?<=JPY)|(?<=EUR)){_SIGNED}")
_BOUND = re.compile(r"\s?(이상|이하|초과|미만)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_HALF = r"(?P<half>오전|오후|새벽|아침|낮|저녁|밤)"


def amount(text: str) -> Fraction | None:
    """The value of digits with their separators, magnitude and power: 1억 2,000만, 3×10^8, 1.234,5."""
    if (m := re.fullmatch(rf"({_PLAIN})({_POWER})", text)) is not None:
        base, power = _plain(m[1]), int(re.findall(r"[+-]?\d+", m[2])[-1])
        if abs(power) > 400:
            return None
        if m[2].startswith("^"):
            return base**power if base or power > 0 else None
        return base * Fraction(10) ** power
    if (m := re.fullmatch(rf"({_PLAIN})\s?(thousand|million|billion|trillion|[kK])", text, re.IGNORECASE)) is not None:
        scale = {"t": 3, "k": 3, "m": 6, "b": 9, "tr": 12}
        word = m[2].lower()
        return _plain(m[1]) * 10 ** scale["tr" if word == "trillion" else word[0]]
    parts = [
        part if part in number_words.SMALL or part in number_words.BIG else _plain(part)
        for part in re.findall(rf"{_PLAIN}|[십백천만억조]", text)
    ]
    return number_words.scaled(parts)


def _plain(text: str) -> Fraction:
    if re.fullmatch(r"\d{1,3}(?:\.\d{3})+,\d+", text):
        text = text.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}", text):
        text = text.replace(".", "")
    return Fraction(re.sub("[,'’]", "", text))


def _number(m: re.Match[str]) -> Quantity | None:
    value = amount(m["amount"])
    if value is None:
        return None
    if m.string[: m.start()].rstrip().endswith("±"):
        return Quantity("code", ("±", str(value)), m.start(), m.end())
    negative = "-" in (m["sign"] or "") or bool(m["sign2"])
    unit = (m["unit"] or m["pre"] or "").strip() or None
    return Quantity("number", (-value if negative else value,), m.start(), m.end(), unit)


def _range(m: re.Match[str]) -> Quantity | None:
    low, high = amount(m["low"]), amount(m["high"])
    if low is None or high is None:
        return None
    sign = -1 if m["sign"] else 1
    unit = (m["unit"] or m["lowunit"] or m["pre"] or "").strip() or None
    return Quantity("range", (sign * low, high), m.start(), m.end(), unit)


def _fraction(m: re.Match[str]) -> Quantity | None:
    over, under = int(m["over"]), int(m["under"])
    if not under:
        return Quantity("code", (str(over), str(under)), m.start(), m.end())
    value = Fraction(over, under) + int(m.groupdict().get("whole") or 0)
    return Quantity("number", (-value if m.groupdict().get("sign") else value,), m.start(), m.end())


def _date(m: re.Match[str]) -> Quantity | None:
    found = m.groupdict()
    month = found["month"]
    number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
    day = int(found["day"]) if found.get("day") else None
    if not 1 <= number <= 12 or (day is not None and not 1 <= day <= 31):
        return None
    year = int(found["year"]) if found.get("year") else None
    return Quantity("date", (year, number, day), m.start(), m.end())


def _american(m: re.Match[str]) -> Quantity | None:
    first, second, year = int(m[1]), int(m[2]), int(m[3])
    month, day = (first, second) if first <= 12 else (second, first)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return Quantity("date", (year, month, day), m.start(), m.end())


def _time(m: re.Match[str]) -> Quantity | None:
    found = m.groupdict()
    hour = int(found["hour"])
    minute = 30 if found.get("thirty") else int(found.get("minute") or 0)
    second = int(found.get("second") or 0)
    half = (found.get("half") or found.get("ampm") or "").lower().replace(".", "")
    written = hour
    if half in ("오후", "저녁", "밤", "낮", "pm") and hour < 12 and not (half == "밤" and hour < 6):
        hour += 12
    elif half in ("오전", "새벽", "아침", "am") and hour == 12:
        hour = 0
    return Quantity("time", (hour, minute, second), m.start(), m.end(), half=bool(half), written_hour=written)


def _colon(m: re.Match[str]) -> Quantity | None:
    parts = [int(part) for part in re.split(r"\s?:\s?", m["colon"])]
    return Quantity("time", (*parts, 0)[:3] if len(parts) == 2 else tuple(parts), m.start(), m.end())


def _duration(m: re.Match[str]) -> Quantity | None:
    found = m.groupdict()
    seconds = sum(int(found.get(name) or 0) * size for name, size in (("h", 3600), ("m", 60), ("s", 1)))
    return Quantity("number", (Fraction(seconds),), m.start(), m.end(), "초")


def _ordinal(m: re.Match[str]) -> Quantity | None:
    return Quantity("number", (Fraction(int(m["ordinal"])),), m.start(), m.end())


def _code(m: re.Match[str]) -> Quantity | None:
    return Quantity("code", tuple(re.findall(r"\d+", m[0])), m.start(), m.end())


_NOT_GLUED = r"(?<![\w.])"
_DAY, _YEAR = r"(?P<day>\d{1,2})", r"(?P<year>\d{4})"
_MINUTE = r"(?:\s?(?:(?P<minute>\d{1,2})분|(?P<thirty>반)))"
_SECOND = r"(?:\s?(?P<second>\d{1,2})초)?"
_AMPM = r"(?P<ampm>[ap]\.?m\.?)(?![A-Za-z])"
_MINUS = r"(?P<sign>(?<![\w)])-)?"
_COUNTED = r"월|년|개|명|번|살|세|층|점|도"
_THOUSANDS_BY_DOTS = r"\d{1,3}(?:\.\d{3})+(?![\d.])"
_PATTERNS: list[tuple[str, Callable[[re.Match[str]], Quantity | None]]] = [
    (r"제\s?(?P<ordinal>\d+)(?=\s?[조항호장절회번차권과])", _ordinal),
    (rf"{_NOT_GLUED}{_YEAR}\s?(?P<sep>[-./])\s?(?P<month>\d{{1,2}})\s?(?P=sep)\s?{_DAY}(?!\d|[-/]\d)", _date),
    (rf"(?:(?P<year>\d{{2,4}})년\s?)?(?P<month>\d{{1,2}})월\s?{_DAY}일", _date),
    (rf"{_YEAR}년\s?(?P<month>\d{{1,2}})월", _date),
    (rf"(?i:\b(?P<month>{_MONTH})\s+{_DAY}(?:st|nd|rd|th)?(?!\d)(?:,?\s+{_YEAR})?)", _date),
    (rf"(?i:\b{_DAY}(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<month>{_MONTH})\b(?:,?\s+{_YEAR})?)", _date),
    (rf"{_NOT_GLUED}(\d{{1,2}})[-./](\d{{1,2}})[-./](\d{{4}})(?!\d)", _american),
    (rf"{_NOT_GLUED}\d+(?:-\d+){{2,}}(?![A-Za-z\d])|{_NOT_GLUED}0\d{{1,3}}-\d+", _code),
    (rf"{_NOT_GLUED}(?!{_THOUSANDS_BY_DOTS})v?\d+(?:\.\d+){{2,}}(?!\d)|{_NOT_GLUED}\d+(?:/\d+){{2,}}", _code),
    (rf"{_HALF}\s?(?P<hour>\d{{1,2}})시(?!간){_MINUTE}?{_SECOND}", _time),
    (rf"(?<!\d)(?P<hour>\d{{1,2}})시{_MINUTE}{_SECOND}", _time),
    (
        rf"(?i:(?:{_HALF}\s?)?{_NOT_GLUED}(?P<hour>\d{{1,2}}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?"
        rf"(?!\d|:\d)(?:\s?{_AMPM})?)",
        _time,
    ),
    (rf"(?i:(?<![\w.:])(?P<hour>\d{{1,2}})\s?{_AMPM})", _time),
    (rf"{_NOT_GLUED}(?P<colon>\d+(?:\s?:\s?\d+)+)", _colon),
    (r"(?<!\d)(?P<h>\d+)\s?시간\s?(?P<m>\d+)\s?분(?:\s?(?P<s>\d+)\s?초)?", _duration),
    (r"(?<!\d)(?P<m>\d+)\s?분\s?(?P<s>\d+)\s?초", _duration),
    (
        r"(?i:(?<!\d)(?P<h>\d+)\s?h(?:ours?|rs?)?\s?(?:and\s)?(?P<m>\d+)\s?m(?:in(?:ute)?s?)?(?![A-Za-z]))",
        _duration,
    ),
    (rf"{_MINUS}(?<!\d)(?P<under>\d+)\s?분의\s?(?P<over>\d+)", _fraction),
    (rf"{_MINUS}(?<![\w./,])(?:(?P<whole>\d+)\s+)?(?P<over>\d+)\s?/\s?(?P<under>\d+)(?![\d.,]\d|\d)", _fraction),
    (
        rf"{_GLUED}{_MINUS}(?P<pre>{units.PREFIX})?(?P<low>{_AMOUNT})(?P<lowunit>{units.SUFFIX}|{_COUNTED})?"
        rf"(?:\s?~\s?|-|\s-\s|\s+to\s+|\s?(?:에서|부터)\s+(?=\S*[^\S\n]?(?:까지|사이)))(?:{units.PREFIX})?"
        rf"(?P<high>{_AMOUNT})(?P<unit>{units.SUFFIX})?",
        _range,
    ),
]
# In this order: what an earlier pattern has read, a later one does not see.
_READERS = [*((re.compile(pattern), read) for pattern, read in _PATTERNS), (_NUMBER, _number)]


_LONGEST = 400
"""Characters of the longest quantity: more digits in a row are no number that anybody meant."""


def quantities(text: str) -> list[Quantity]:
    """The quantities of a `prepared` text in their order; numbers in words where it holds no digits."""
    found: list[Quantity] = []
    rest = text
    for start, end, value in number_words.strong(rest):
        unit = re.compile(units.SUFFIX).match(rest, end)
        found.append(Quantity("number", (value,), start, end, unit[0].strip() if unit else None))
        rest = _claimed(rest, start, end)
    for pattern, read in _READERS:
        for m in list(pattern.finditer(rest)):
            quantity = read(m) if len(m[0]) <= _LONGEST else None
            if quantity is not None:
                found.append(quantity)
                rest = _claimed(rest, m.start(), m.end())
    if not found:
        for start, end, value in number_words.in_words(rest):
            unit = re.compile(units.SUFFIX).match(rest, end)
            found.append(Quantity("number", (value,), start, end, unit[0].strip() if unit else None))
    return sorted((_bounded(q, text) for q in found), key=lambda q: q.start)


def _claimed(text: str, start: int, end: int) -> str:
    return text[:start] + "\0" * (end - start) + text[end:]


def _bounded(quantity: Quantity, text: str) -> Quantity:
    m = re.compile(rf"[가-힣]{{0,2}}{_BOUND.pattern}").match(text, quantity.end)
    if m is None:
        return quantity
    return Quantity(**{**quantity.__dict__, "bound": m[1]})


def same(reference: Quantity, answer: Quantity) -> bool:
    """Whether `answer` is what `reference` says: the whole of it, in any spelling and unit."""
    if reference.bound is not None and reference.bound != answer.bound:
        return False
    if reference.kind == "number" and answer.kind == "time":
        plain = reference.unit is None or reference.unit == "시"
        return plain and answer.parts[1:] == (0, 0) and reference.value == answer.written_hour
    if reference.kind == "time" and answer.kind == "number":
        return answer.unit == "시" and reference.parts == (answer.value, 0, 0)
    if reference.kind != answer.kind:
        return False
    if reference.kind == "time":
        either = not reference.half and reference.parts[0] in (answer.written_hour, answer.parts[0])
        return reference.parts == answer.parts or (either and reference.parts[1:] == answer.parts[1:])
    if reference.kind == "date":
        return all(r is None or r == a for r, a in zip(reference.parts, answer.parts, strict=True))
    if reference.kind == "code":
        return reference.parts == answer.parts
    return _same_values(reference, answer)


def _same_values(reference: Quantity, answer: Quantity) -> bool:
    ours = units.dimension_of(reference.unit) if reference.unit else None
    theirs = units.dimension_of(answer.unit) if answer.unit else None
    if ours is not None and theirs is not None:
        factors = units.in_common(ours, theirs)
        if factors is None:
            return False
        return [p * factors[0] for p in reference.parts] == [p * factors[1] for p in answer.parts]  # type: ignore[operator]
    if reference.parts == answer.parts:
        return True
    # A share may be written either way; beside a number without a unit 50 % is .5 as well.
    if (ours is None) != (theirs is None):
        factor = Fraction(1, 100)
        if ours is not None and ours[0] == "percent" and answer.unit is None:
            return [p * factor for p in reference.parts] == list(answer.parts)  # type: ignore[operator]
        if theirs is not None and theirs[0] == "percent" and reference.unit is None:
            return [p * factor for p in answer.parts] == list(reference.parts)  # type: ignore[operator]
    return False
