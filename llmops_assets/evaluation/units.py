"""Units that a number may stand with, by dimension, so that 5 km is 5,000 m and no 5 m."""

from fractions import Fraction

_TABLE: dict[str, dict[str, str]] = {
    "length": {
        "1000": "km|킬로미터|kilometers?|kilometres?",
        "1": "m|미터|meters?|metres?",
        "1/100": "cm|센티미터|센티|centimeters?",
        "1/1000": "mm|밀리미터|밀리|millimeters?",
        "201168/125": "mi|마일|miles?",
        "1143/1250": "yd|야드|yards?",
        "381/1250": "ft|피트|feet|foot",
        "127/5000": "인치|inch|inches",
    },
    "mass": {
        "1000000": "톤|tons?|tonnes?",
        "1000": "kg|킬로그램|kilograms?",
        "1": "g|그램|grams?",
        "1/1000": "mg|밀리그램|milligrams?",
        "45359237/100000": "lb|lbs",
        "45359237/1600000": "oz|온스|ounces?",
    },
    "data": {
        "1000000000000": "TB|테라바이트|terabytes?",
        "1000000000": "GB|기가바이트|gigabytes?",
        "1000000": "MB|메가바이트|megabytes?",
        "1000": "KB|킬로바이트|kilobytes?",
        "1": "바이트|bytes?",
    },
    "celsius": {"1": "°C|섭씨"},
    "fahrenheit": {"1": "°F|화씨"},
    "energy": {"1000": "kcal|킬로칼로리", "1": "cal|칼로리"},
    "power": {"1000": "kW|킬로와트", "1": "와트"},
    "volume": {"1000": "l|L|리터|liters?|litres?", "1": "ml|mL|밀리리터|cc|milliliters?"},
    "duration": {
        "3600": "시간|hours?|hrs?|h",
        "60": "분|minutes?|mins?",
        "1": "초|seconds?|secs?|s",
        "86400": "days?",
        "604800": "주일|주간|weeks?",
    },
    "days": {"1": "일"},
    "won": {"1": "원|won|₩|KRW"},
    "dollar": {"1": r"달러|불|dollars?|\$|USD"},
    "yen": {"1": "엔|yen|¥|JPY"},
    "euro": {"1": "유로|euros?|€|EUR"},
    "pound": {"1": "파운드|pounds?|£|GBP"},
    "yuan": {"1": "위안|yuan|CNY|RMB"},
    "percent": {"1": "%|퍼센트|프로|percent|per cent"},
    "hour of day": {"1": "시"},
}

_UNITS: dict[str, tuple[str, Fraction]] = {}
for _dimension, _members in _TABLE.items():
    for _factor, _names in _members.items():
        for _name in _names.split("|"):
            for _spelled in {_name.replace("s?", ""), _name.replace("s?", "s")}:
                _UNITS[_spelled.replace("\\", "")] = (_dimension, Fraction(_factor))
_UNITS["days"] = _UNITS["day"] = ("days", Fraction(1))
_DAY = Fraction(86400)

_BEFORE = "₩$¥€£"
PREFIX = r"(?:[₩$¥€£]|(?:KRW|USD|JPY|EUR|GBP|CNY)\s?)"
_latin = sorted((n for n in _UNITS if n[0].isascii() and n[0].isalpha()), key=len, reverse=True)
_other = sorted((n for n in _UNITS if not n[0].isascii() and n not in _BEFORE), key=len, reverse=True)
# A Latin unit ends where its word ends (5 m, no 5 miles); a Korean one may be followed by a particle (5분에), and those
# that are also the beginning of other words are not read there: 분의 (of), 시간 is listed before 시, 초등 is a school.
SUFFIX = (
    rf"(?:\s?(?:{'|'.join(_latin)})(?![A-Za-z])|\s?%|"
    rf"\s?(?:{'|'.join(_other)})(?!간격|그램|등학|의\s?\d|차))"
)


def dimension_of(unit: str) -> tuple[str, Fraction] | None:
    """(dimension, factor to its base unit) of a unit as written, or None where it is not known."""
    unit = unit.strip()
    return _UNITS.get(unit) or _UNITS.get(unit.lower())


def in_common(a: tuple[str, Fraction], b: tuple[str, Fraction]) -> tuple[Fraction, Fraction] | None:
    """The factors that make quantities of two units comparable; None where they measure different things."""
    if {a[0], b[0]} == {"days", "duration"}:
        return tuple(x[1] * _DAY if x[0] == "days" else x[1] for x in (a, b))  # type: ignore[return-value]
    return (a[1], b[1]) if a[0] == b[0] else None
