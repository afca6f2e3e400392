"""Whether figures that look like personal data can be it: dates, checksums, ranges, and what they could be instead."""

import datetime
import ipaddress
import re


def digits_of(text: str) -> str:
    """The ASCII digits of a text, and nothing between them."""
    return re.sub(r"[^0-9]", "", text)


def _date(year: int, month: int, day: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


_CENTURY = {
    "9": 1800,
    "0": 1800,
    "1": 1900,
    "2": 1900,
    "5": 1900,
    "6": 1900,
    "3": 2000,
    "4": 2000,
    "7": 2000,
    "8": 2000,
}
_RRN_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def birth_is_possible(number: str) -> bool:
    """Whether the first seven digits of a registration number are a date of birth that has been."""
    digits = digits_of(number)
    born = _date(_CENTURY[digits[6]] + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    return born is not None and born <= datetime.date.today()


def rrn_checksum_holds(number: str) -> bool:
    """The checksum of resident registration numbers issued before October 2020; later ones carry none."""
    digits = [int(char) for char in digits_of(number)]
    total = sum(weight * digit for weight, digit in zip(_RRN_WEIGHTS, digits, strict=False))
    return (11 - total % 11) % 10 == digits[12]


def bare_registration(number: str) -> bool:
    """Thirteen digits in a row are also bar codes, sums and milliseconds since 1970: those need the checksum."""
    if not birth_is_possible(number):
        return False
    epoch_milliseconds = 1_400_000_000_000 <= int(number) < 1_900_000_000_000
    odd, even = sum(map(int, number[0:12:2])), sum(map(int, number[1:12:2]))
    bar_code = number.startswith("880") and (10 - (odd + 3 * even) % 10) % 10 == int(number[12])
    too_old = number[6] in "12" and int(number[:2]) + 100 <= datetime.date.today().year - 1900
    return rrn_checksum_holds(number) or not (epoch_milliseconds or bar_code or too_old)


def luhn_holds(number: str) -> bool:
    """The Luhn checksum of payment cards (ISO/IEC 7812-1)."""
    digits = [int(char) for char in reversed(digits_of(number))]
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2])
    return len(digits) >= 12 and len(set(digits)) > 1 and (sum(digits[0::2]) + sum(doubled)) % 10 == 0


_BARE_CARD = re.compile(r"(?:4|5[1-5]|22[2-9]|2[3-6]|27[01]|2720|6011|65|64[4-9]|62|35|9)[0-9]+")


def card_holds(number: str) -> bool:
    """Whether a number may be a payment card: Luhn's check, and, of digits in a row, length and issuer."""
    digits = digits_of(number)
    if not luhn_holds(digits):
        return False
    # Digits in a row are often something else: the length and the issuer have to fit as well.
    return number != digits or (len(digits) in (15, 16) and _bare_card(digits))


def _bare_card(digits: str) -> bool:
    return digits.startswith(("34", "37")) if len(digits) == 15 else _BARE_CARD.fullmatch(digits) is not None


def brn_checksum_holds(number: str) -> bool:
    """The checksum of Korean business registration numbers (National Tax Service)."""
    digits = [int(char) for char in digits_of(number)]
    total = sum(weight * digit for weight, digit in zip((1, 3, 7, 1, 3, 7, 1, 3, 5), digits, strict=False))
    return (10 - (total + digits[8] * 5 // 10) % 10) % 10 == digits[9]


def timestamp(digits: str) -> bool:
    """Whether digits read as YYYYMMDD, with or without hhmm and ss (and thousandths)."""
    if len(digits) < 8 or not digits.startswith(("19", "20")):
        return False
    if _date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) is None:
        return False
    clock = digits[8:14]
    return all(int(clock[i : i + 2]) < limit for i, limit in ((0, 24), (2, 60), (4, 60)) if len(clock) >= i + 2)


_PHONE_LIKE = re.compile(r"\(?0(?:1[016789]|2|[3-6][1-5]|70|50[2-9]?)\)?[-. ]?[0-9]{3,4}[-. ]?[0-9]{4}")


def account_holds(number: str) -> bool:
    """Whether a number may be a bank account: 10 to 16 digits that are no timestamp and no telephone number."""
    digits = digits_of(number)
    if not 10 <= len(digits) <= 16 or len(set(digits)) == 1:
        return False
    return not timestamp(digits) and _PHONE_LIKE.fullmatch(number) is None


def licence_holds(number: str) -> bool:
    """Whether a number may be a driving licence: written with hyphens, or at least no timestamp."""
    return "-" in number or not timestamp(digits_of(number))


def international(number: str) -> bool:
    """Whether a number has as many digits as an international telephone number (E.164); more are wanted of digits in a
    row.
    """
    digits = digits_of(number)
    separated = re.search(r"[0-9][-. (]", number) is not None
    return (8 if separated else 10) <= len(digits) <= 15


_TOLL_FREE = ("800", "833", "844", "855", "866", "877", "888")


def north_american(number: str) -> bool:
    """Whether a North American number belongs to somebody: toll-free ones do not."""
    return not digits_of(number).removeprefix("1").startswith(_TOLL_FREE)


def public_address(number: str) -> bool:
    """Whether an IP address is routed in the internet: private and reserved ones name nobody."""
    try:
        return ipaddress.ip_address(number).is_global
    except ValueError:
        return False


def iban_holds(number: str) -> bool:
    """The remainder of ISO 13616."""
    text = number.replace(" ", "")
    return 15 <= len(text) <= 34 and int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1
