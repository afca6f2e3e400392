"""Passwords of users: what is taken for one, and how it is kept and checked (argon2id, RFC 9106)."""

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

LONGEST = 1024
"""Bytes of a password: hashing more would only keep the machine busy."""
_AT_ONCE = threading.BoundedSemaphore(2)
"""Each hash takes 64 MiB: however many log in at once, there are no more of them."""
_PATIENCE_SECONDS = 5.0


class TooBusy(Exception):
    """So many passwords are being looked at that this one is not."""


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _AT_ONCE.acquire(timeout=_PATIENCE_SECONDS):
        raise TooBusy("too many people log in at this moment")
    try:
        yield
    finally:
        _AT_ONCE.release()


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher().hash("nobody's password")


def fault_of(password: str, name: str, shortest: int) -> str | None:
    """Why a text is no password for the user `name`; None where it is one."""
    text = _normal(password)
    if len(text) < shortest:
        return f"a password has {shortest} characters or more; this one has {len(text)}"
    if len(text.encode()) > LONGEST:
        return f"a password has {LONGEST} bytes at most"
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        return "a password has no control characters"
    plain, own = text.casefold(), _normal(name).casefold()
    if len(set(plain)) < 5 or (len(own) > 2 and len(plain.replace(own, "")) < shortest // 2):
        return "this password is easily guessed: it is the name, or a few characters again and again"
    return None


def hash_of(password: str) -> str:
    """What is kept of a password; TooBusy."""
    with _one_of_few():
        return _hasher().hash(_normal(password))


def is_right(password: str, kept: str | None) -> bool:
    """Whether a password is the one that `kept` is of; TooBusy.

    It takes as long where nothing is kept, and is never right there.
    """
    if len(password) > LONGEST:
        return False
    with _one_of_few():
        try:
            return _hasher().verify(kept or _nobodys_hash(), _normal(password)) and kept is not None
        except (VerificationError, InvalidHashError):
            return False


def is_old(kept: str) -> bool:
    """Whether what is kept was made by weaker parameters than those of today."""
    return _hasher().check_needs_rehash(kept)


def _normal(password: str) -> str:
    """A password whichever way a keyboard composes it: macOS gives Hangul in parts, Windows in syllables."""
    return unicodedata.normalize("NFKC", password)
