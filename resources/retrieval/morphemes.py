"""What a text says, word by word: Korean by content morphemes, other words by their stems."""

import re
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kiwipiepy import Kiwi

_LOCK = threading.Lock()
_CONTENT = ("NNG", "NNP", "NR", "VV", "VA", "MAG", "XR", "SL", "SH", "SN")
"""Tags of morphemes that carry meaning: nouns, verbs, adverbs, roots, foreign words, characters, numbers."""

_EVERYDAY = frozenset(
    re.findall(r"\S+", "하 되 있 없 않 같 이 그 저 것 수 때 등 및 경우 가능 필요 위하 대하 통하 따르")
)
_STOP = frozenset(
    re.findall(
        r"\S+",
        "a an and are as at be been but by can do does for from has have he her his how i if in into is it its may "
        "more must no not of on or our she should so such than that the their them then there these they this those "
        "to was we were what when where which who why will with would you your",
    )
)
_HANGUL = re.compile("[가-힣]")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*|\d+(?:[.,]\d+)*")


@cache
def _kiwi() -> "Kiwi":
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=1)


def tokens(text: str) -> list[str]:
    """What a text says, word by word: its content morphemes, numbers as they are, English words without endings."""
    if not _HANGUL.search(text):
        return [word for match in _WORD.findall(text) if (word := _stem(match)) not in _STOP]
    with _LOCK:
        # Of one text it gives its tokens; of several, a list of lists, which its type says too.
        found: Any = _kiwi().tokenize(text)
    words: list[str] = []
    for token in found:
        tag = token.tag.split("-")[0]
        if tag in _CONTENT and token.form not in _EVERYDAY:
            words.append(_stem(token.form) if tag == "SL" else token.form)
    return [word for word in words if word not in _STOP]


def _stem(word: str) -> str:
    word = word.lower().removesuffix("'s").strip("'-")
    if word[:1].isdigit():
        return word.replace(",", "")
    for ending, left in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return (word[: -len(ending)] + left).removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word
