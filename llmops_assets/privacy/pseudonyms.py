"""Stands-in for personal data that keep who is who inside one dataset, and tell nobody else anything.

A stand-in is the type's placeholder with six letters of an HMAC-SHA256 of the value, under a key of the dataset's own
that is derived from the installation's: the same person has the same one throughout a dataset and its versions, and
another one in any other dataset. Whoever has the key can test a guess; whoever has not can do nothing with it.
"""

import hashlib
import hmac
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "LLMOPS_PSEUDONYM_KEY"
_LETTERS = "bcdfghjkmnpqrstvwxyz"
"""No digits and no vowels, so that no stand-in looks like a number or a name."""
_LENGTH = 6
_SHORTEST_KEY = 16
_NUMBERS = ("PHONE_NUMBER", "KR_RRN", "KR_FRN", "CREDIT_CARD", "KR_ACCOUNT", "KR_BRN", "KR_DRIVER_LICENSE", "US_SSN")


class PseudonymKeyError(RuntimeError):
    """The key is missing or too short. Never holds the key."""


def key_from(environment: Mapping[str, str] = os.environ) -> bytes:
    """The installation's key, from LLMOPS_PSEUDONYM_KEY or the file that LLMOPS_PSEUDONYM_KEY_FILE names."""
    text, file = environment.get(VARIABLE, ""), environment.get(f"{VARIABLE}_FILE")
    if not text and file:
        try:
            text = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PseudonymKeyError(f"{VARIABLE}_FILE: {file} cannot be read ({error.__class__.__name__})") from error
    key = text.encode()
    if len(key) < _SHORTEST_KEY:
        what = f"has {len(key)} bytes, fewer than {_SHORTEST_KEY}" if key else "is not set"
        raise PseudonymKeyError(
            f"datasets.pii.mode is pseudonymise, but {VARIABLE} {what}: set it, or {VARIABLE}_FILE, to a secret "
            "such as `openssl rand -hex 32` prints, and keep it: with another key the same person gets another stand-in"
        )
    return key


@dataclass(frozen=True)
class Pseudonyms:
    """Stands-in of one dataset (its name without the version)."""

    dataset: str
    key: bytes = field(repr=False)

    def of(self, type_: str, value: str, placeholder: str) -> str:
        """The stand-in: ``[이름-kfmwqr]``."""
        own = hmac.digest(self.key, f"dataset\0{self.dataset}".encode(), hashlib.sha256)
        digest = hmac.digest(own, f"{type_}\0{canonical(type_, value)}".encode(), hashlib.sha256)
        number, letters = int.from_bytes(digest[:8]), []
        for _ in range(_LENGTH):
            number, rest = divmod(number, len(_LETTERS))
            letters.append(_LETTERS[rest])
        return f"{placeholder.removesuffix(']')}-{''.join(letters)}{']' if placeholder.endswith(']') else ''}"


def canonical(type_: str, value: str) -> str:
    """The value without what people write differently: spaces, hyphens, case, width, the country's code."""
    text = unicodedata.normalize("NFKC", value)
    if type_ in _NUMBERS:
        digits = re.sub(r"\D", "", text)
        if type_ == "PHONE_NUMBER" and text.lstrip("( ").startswith(("+82", "82", "0082")):
            digits = "0" + re.sub(r"^(?:00)?820?", "", digits)
        return digits or text
    return re.sub(r"\s+", "", text).casefold()
