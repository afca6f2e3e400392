"""What a tokenizer does to the texts of rows that nobody meant: letters and ends of lines that it loses."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from images.control_tokens import control_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS = 256
"""Texts that are looked at, evenly spread over the rows."""
_LETTERS = 2000
"""Of a long text, so many."""
_FEW = 0.05
"""Share of the texts in which a letter may be unknown: a rare sign, an emoji."""
_BYTES = 0.9
"""Tokens a byte from which on a tokenizer joins nothing; one that never saw a language has two thirds or so."""
_ENOUGH = 300
"""Bytes of text from which on that says something."""

Found = dict[str, list[str]]
"""Row ids by the name of a finding."""


def findings_of_texts(
    tokenizer: "PreTrainedTokenizerBase", template: str, rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
) -> Found:
    """Names of what `tokenizer` loses of the texts of `rows` (row id, messages), each with the rows that have it.

    A text is encoded and decoded again. White space around it, and letters that are the same by Unicode's
    compatibility (NFKC: full-width ones), are no loss.
    """
    held = control_tokens(tokenizer, template).any
    every = [(row_id, m["content"][:_LETTERS]) for row_id, messages in rows for m in messages if m["content"]]
    # What stands there for a control token is cut before it is tokenised: another text.
    asked = [(row_id, text) for row_id, text in every[:: max(1, len(every) // TEXTS)] if not held.search(text)]
    if not asked:
        return {}
    encoded = tokenizer([text for _, text in asked], add_special_tokens=False)["input_ids"]
    found: Found = {}
    for (row_id, text), ids in zip(asked, encoded, strict=True):
        again = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if (name := _lost(text, again)) is not None:
            found.setdefault(name, []).append(row_id)
    if len(found.get("tokens_lose_letters", [])) <= _FEW * len(asked):
        found["tokens_lose_some_letters"] = found.pop("tokens_lose_letters", [])
    size = sum(len(_plain(text).encode()) for _, text in asked)
    if size >= _ENOUGH and sum(map(len, encoded)) >= _BYTES * size:
        found["tokens_are_bytes"] = [row_id for row_id, _ in asked]
    return {name: list(dict.fromkeys(ids)) for name, ids in found.items() if ids}


def loses_lines(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the end of a line between two words does not come back."""
    text = "first\nsecond"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return "\n" not in tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _lost(text: str, again: str) -> str | None:
    one, other = _plain(text), _plain(again)
    if one == other:
        return None
    if one.split() != other.split():
        return "tokens_lose_letters"
    return "tokens_lose_lines" if one.count("\n") != other.count("\n") else "tokens_lose_spaces"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip()
