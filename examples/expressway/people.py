"""Makes personal data that belongs to nobody, in the forms that customers write it in."""

import random
from typing import Any

from examples.expressway.korean import fill, slots

# Type of each kind of item, as the policy's privacy section names it; `bank` alone is no personal data.
TYPES = {
    "name": "PERSON",
    "english_name": "PERSON",
    "phone": "PHONE_NUMBER",
    "email": "EMAIL_ADDRESS",
    "rrn": "KR_RRN",
    "card": "CREDIT_CARD",
    "account": "KR_ACCOUNT",
    "plate": "KR_PLATE",
    "address": "KR_ADDRESS",
    "passport": "KR_PASSPORT",
    "license": "KR_DRIVER_LICENSE",
    "business": "KR_BRN",
}
PLACEHOLDERS = {
    "PERSON": "[이름]",
    "PHONE_NUMBER": "[전화번호]",
    "EMAIL_ADDRESS": "[이메일]",
    "KR_RRN": "[주민등록번호]",
    "CREDIT_CARD": "[카드번호]",
    "KR_ACCOUNT": "[계좌번호]",
    "KR_PLATE": "[차량번호]",
    "KR_ADDRESS": "[주소]",
    "KR_PASSPORT": "[여권번호]",
    "KR_DRIVER_LICENSE": "[운전면허번호]",
    "KR_BRN": "[사업자등록번호]",
}


def _digits(rng: random.Random, count: int) -> str:
    return "".join(str(rng.randrange(10)) for _ in range(count))


def luhn(payload: str) -> str:
    """The payload with its Luhn check digit (ISO/IEC 7812-1)."""
    total = 0
    for place, digit in enumerate(reversed(payload)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return payload + str(-total % 10)


def rrn_check_digit(twelve: str) -> int:
    """Check digit of a resident registration number issued before October 2020."""
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    return (11 - sum(int(d) * w for d, w in zip(twelve, weights, strict=True)) % 11) % 10


def business_number(nine: str) -> str:
    """A business registration number with its check digit, hyphenated."""
    weights = (1, 3, 7, 1, 3, 7, 1, 3, 5)
    total = sum(int(d) * w for d, w in zip(nine, weights, strict=True)) + int(nine[8]) * 5 // 10
    ten = nine + str(-total % 10)
    return f"{ten[:3]}-{ten[3:5]}-{ten[5:]}"


def _rrn(rng: random.Random) -> str:
    born = f"{rng.randrange(50, 100):02d}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    twelve = born + str(rng.choice((1, 2))) + _digits(rng, 5)
    wrong = (rrn_check_digit(twelve) + rng.randrange(1, 10)) % 10
    return f"{twelve[:6]}-{twelve[6:]}{wrong}"


def _phone(rng: random.Random) -> str:
    block = f"{rng.choice('01')}{_digits(rng, 3)}"
    separator = rng.choice(("-", "-", "-", "", " ", "."))
    return separator.join(("010", block, _digits(rng, 4)))


def _card(rng: random.Random) -> str:
    number = luhn("400000" + _digits(rng, 9))
    separator = rng.choice(("-", "-", " "))
    return separator.join(number[i : i + 4] for i in range(0, 16, 4))


def _plate(rng: random.Random) -> str:
    letter = rng.choice("가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주")
    return f"{rng.randrange(10, 700)}{letter}{rng.choice(('', ' '))}{rng.randrange(1000, 10000)}"


def person(rng: random.Random, tables: dict[str, Any]) -> dict[str, str]:
    """One item of every kind, by the name of its slot."""
    return {
        "name": rng.choice(tables["surnames"]) + rng.choice(tables["given_names"]),
        "english_name": rng.choice(tables["english_names"]),
        "phone": _phone(rng),
        "email": f"{rng.choice(tables['mail_names'])}@{rng.choice(tables['mail_domains'])}",
        "rrn": _rrn(rng),
        "card": _card(rng),
        "bank": rng.choice(tables["banks"]),
        "account": f"{rng.randrange(100, 1000)}-{_digits(rng, 3)}-{_digits(rng, 6)}",
        "plate": _plate(rng),
        "address": f"{rng.choice(tables['regions'])} {rng.choice(tables['roads'])} {rng.randrange(1, 300)}",
        "passport": f"M{rng.randrange(1, 10)}{_digits(rng, 7)}",
        "license": f"{rng.randrange(11, 27)}-{_digits(rng, 2)}-{_digits(rng, 6)}-{_digits(rng, 2)}",
        "business": business_number("999" + f"{rng.randrange(1, 80):02d}" + _digits(rng, 4)),
    }


def phrase(template: str, rng: random.Random, tables: dict[str, Any]) -> tuple[str, str, list[str]]:
    """One sentence with personal data: as written, with the data masked, and the types that it holds, in order."""
    words = person(rng, tables)
    masked = {name: PLACEHOLDERS[TYPES[name]] if name in TYPES else word for name, word in words.items()}
    types = [TYPES[name] for name in slots(template) if name in TYPES]
    return fill(template, words), fill(template, masked), types
