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
_NO_LETTERS = bytes(code for code in range(128) if _LETTER.match(chr(code)) is None)
# What is its own NFKC and NFC, has no case, no marks and no look-alikes.
_PLAIN_ALREADY = re.compile(r"[\x00-@\[-\x7f가-힣]*")
_FIGURE = re.compile("[013457@$!|]")
_NOT_LETTERS = re.compile(r"[^\w<>|\[\]#:{}/]+|_+")
_SIGNS = bytes(code for code in range(128) if _NOT_LETTERS.match(chr(code)))
"""Those of ASCII."""
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_=-])(?:[A-Za-z0-9+/_-]{4}[\s]?){5,}[A-Za-z0-9+/_-]{0,3}={0,2}")
_FEWEST_BASE64 = 20
"""Characters of the shortest that is looked for; a hexadecimal one has more, of the same."""
_NOT_BASE64 = bytes(code for code in range(128) if re.match("[A-Za-z0-9+/_-]", chr(code)) is None)
_HEX = re.compile(r"(?<![0-9A-Fa-f])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[\s,:]?){16,}(?![0-9A-Fa-f])")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2}){3,}|&#x?[0-9A-Fa-f]+;|\\u[0-9A-Fa-f]{4}")
_ROT13 = str.maketrans(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "nopqrstuvwxyzabcdefghijklmNOPQRSTUVWXYZABCDEFGHIJKLM"
)


def is_plain(text: str) -> bool:
    """Whether a text is made of Hangul syllables and ASCII without capitals: it has no other form."""
    return _PLAIN_ALREADY.fullmatch(text) is not None


def plain(text: str) -> str:
    """NFKC, in lower case, without invisible characters and marks, with Latin letters for their look-alikes."""
    if is_plain(text):
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
    if is_plain(text):
        # What is no ASCII of it is letters.
        return text.encode().translate(None, _SIGNS).decode()
    return _NOT_LETTERS.sub("", text)


def forms(text: str) -> list[tuple[str, str]]:
    """(how it was disguised, squeezed form) of a text and of what is encoded in it; "" where it was not disguised."""
    text = text[:_MAX] if len(text) <= 2 * _MAX else text[:_MAX] + " " + text[-_MAX:]
    bare = plain(text)
    found = [("", squeezed(bare))]
    letters = len(bare.encode("ascii", "ignore").translate(None, _NO_LETTERS))
    if letters and _FIGURE.search(bare):
        found += [("with figures for letters", squeezed(_unleeted(bare, table))) for table in _LEETS]
    found.append(("backwards", found[0][1][::-1]))
    if letters * 2 > len(found[0][1]):
        found.append(("in ROT13", found[0][1].translate(_ROT13)))
    found += [(how, squeezed(plain(decoded))) for how, decoded in decodings(text)]
    return found


def _unleeted(text: str, table: dict[int, int]) -> str:
    return _WORD.sub(lambda match: match[0].translate(table) if _LETTER.search(match[0]) else match[0], text)


def decodings(text: str) -> list[tuple[str, str]]:
    """(encoding, text) of what in a text is encoded and readable once decoded, also twice."""
    once = _once(text)
    twice = [(f"{how} in {name}", inner) for how, part in once for name, inner in _once(part)]
    return [*once, *twice][:32]


def _once(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    # Of most texts in Korean too few characters can be of either.
    has_room = len(text.encode("ascii", "ignore").translate(None, _NOT_BASE64)) >= _FEWEST_BASE64
    for match in _BASE64.finditer(text) if has_room else ():
        compact = re.sub(r"\s", "", match[0]).rstrip("=")
        try:
            data = base64.b64decode(compact.translate(str.maketrans("-_", "+/")) + "=" * (-len(compact) % 4))
        except (binascii.Error, ValueError):
            continue
        if (decoded := _readable(data)) is not None:
            found.append(("base64", decoded))
    for match in _HEX.finditer(text) if has_room else ():
        digits = re.sub(r"0x|\\x|[\s,:]", "", match[0])
        if (decoded := _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))) is not None:
            found.append(("hexadecimal", decoded))
    if ("%" in text or "&" in text or "\\" in text) and _ESCAPES.search(text):
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
