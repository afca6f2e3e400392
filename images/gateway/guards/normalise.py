"""Gives a text the plain forms under which the same words are found however they were disguised."""

import base64
import binascii
import html
import re
import unicodedata
from urllib.parse import unquote

_MAX = 64 * 1024
# Letters of other scripts that look like Latin ones: what is left after NFKC.
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһкмнтвгᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢαεορτυικνɑɡոսօ",
    "aeopcyxijsdhkmhtbrabcdeghijklmnoprtuvwyzaeoptuiknagnuo",
)
_LEETS = tuple(str.maketrans("013457@$!|", f"o{one}eastas{one}{one}") for one in "il")
_WORD = re.compile(r"[\w@$!|]+")
_LETTER = re.compile(r"[a-z]")
# What is its own NFKC and NFC, has no case, no marks and no look-alikes.
_PLAIN_ALREADY = re.compile(r"[\x00-@\[-\x7f가-힣]*")
FIGURES = "[013457@$!|]"
"""Class of what is written for letters."""
_FIGURE = re.compile(FIGURES)
_NOT_LETTERS = re.compile(r"[^\w<>|\[\]#:{}/]+|_+")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])(?:[A-Za-z0-9+/_-]{4}[\s]?){5,}[A-Za-z0-9+/_-]{0,3}={0,2}")
FEWEST_BASE64 = 20
"""Characters of the shortest that is looked for; a hexadecimal one has more."""
_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[\s,:]?){16,}(?![0-9A-Fa-f])")
ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2}){3,}|&#x?[0-9A-Fa-f]+;|\\u[0-9A-Fa-f]{4}")
ROT13 = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "nopqrstuvwxyzabcdefghijklmNOPQRSTUVWXYZABCDEFGHIJKLM"
)


def plain(text: str) -> str:
    """NFKC, in lower case, without invisible characters and marks, with Latin letters for their look-alikes."""
    if _PLAIN_ALREADY.fullmatch(text):
        return text
    text = unicodedata.normalize("NFKC", text).casefold()
    if not text.isascii():
        # Decomposed, so that marks on Latin letters fall off; Hangul is put together again.
        parts = unicodedata.normalize("NFD", text)
        text = unicodedata.normalize("NFC", "".join(c for c in parts if unicodedata.category(c) not in ("Mn", "Cf")))
        text = text.translate(_LOOKALIKES)
    return text


def squeezed(text: str) -> str:
    """A plain text without spaces and punctuation: 이 전 지 시 를, i-g-n-o-r-e and ignore are alike."""
    return _NOT_LETTERS.sub("", text)


def forms(text: str) -> list[tuple[str, str]]:
    """(how it was disguised, squeezed form) of a text and of what is encoded in it; "" where it was not disguised."""
    text = text[:_MAX] if len(text) <= 2 * _MAX else text[:_MAX] + " " + text[-_MAX:]
    bare = plain(text)
    found = [("", squeezed(bare))]
    if _LETTER.search(bare) and _FIGURE.search(bare):
        found += [("with figures for letters", squeezed(_unleeted(bare, table))) for table in _LEETS]
    found.append(("backwards", found[0][1][::-1]))
    if len(_LETTER.findall(bare)) * 2 > len(found[0][1]):
        found.append(("in ROT13", found[0][1].translate(ROT13)))
    found += [(how, squeezed(plain(decoded))) for how, decoded in decodings(text)]
    return found


def _unleeted(text: str, table: dict[int, int]) -> str:
    return _WORD.sub(lambda match: match[0].translate(table) if _LETTER.search(match[0]) else match[0], text)


def decodings(text: str) -> list[tuple[str, str]]:
    """(encoding, text) of what in a text is encoded and readable once decoded, also twice."""
    found, todo = [], [(text, "")]
    for _ in range(2):
        todo = [(inner, f"{how}{' in ' if how else ''}{name}") for part, how in todo for name, inner in _once(part)]
        found += [(how, part) for part, how in todo]
    return found[:32]


def _once(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if len(text) < FEWEST_BASE64 and "%" not in text and "&" not in text and "\\" not in text:
        return found
    for match in _BASE64.finditer(text):
        compact = re.sub(r"\s", "", match[0]).rstrip("=")
        try:
            data = base64.b64decode(compact.translate(str.maketrans("-_", "+/")) + "=" * (-len(compact) % 4))
        except (binascii.Error, ValueError):
            continue
        if (decoded := _readable(data)) is not None:
            found.append(("base64", decoded))
    for match in _HEX.finditer(text):
        digits = re.sub(r"0x|\\x|[\s,:]", "", match[0])
        if (decoded := _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))) is not None:
            found.append(("hexadecimal", decoded))
    if ESCAPES.search(text):
        unescaped = re.sub(r"\\u([0-9A-Fa-f]{4})", lambda m: chr(int(m[1], 16)), html.unescape(unquote(text)))
        if unescaped != text:
            found.append(("escapes", unescaped))
    return found


def _readable(data: bytes) -> str | None:
    """Bytes as a text, if they are one."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    printable = sum(char.isprintable() or char.isspace() for char in text)
    return text if len(text) >= 6 and printable >= 0.95 * len(text) else None
