"""Public technical prose in Korean that lies on a Debian machine: translated messages of programs, and manual pages."""

import gettext
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

MESSAGES = Path("/usr/share/locale/ko/LC_MESSAGES")
MANUALS = Path("/usr/share/man/ko")
_HANGUL = re.compile("[가-힣]")


def messages(folder: Path = MESSAGES) -> Iterator[str]:
    """Messages in Korean of the programs whose catalogs are installed."""
    for path in sorted(folder.glob("*.mo")):
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        yield from (text for text in catalog.values() if isinstance(text, str) and _HANGUL.search(text))


def manuals(folder: Path = MANUALS) -> Iterator[str]:
    """Lines in Korean of the manual pages, without their marks."""
    for path in sorted(folder.rglob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            for line in file:
                text = re.sub(r"\\f.|\\", "", line).strip()
                if not line.startswith((".", "'")) and _HANGUL.search(text):
                    yield text
