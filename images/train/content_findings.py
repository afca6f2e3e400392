"""Whether what the rows say comes out as they say it: in the text that a chat template writes, and before a token at
which a server would stop.

A template's structure shows on one row of each shape; what it does to certain words, or to long texts, shows on the
rows alone.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from images.chat_rendering import texts_of
from images.control_tokens import BREAK, control_tokens
from images.train.chat import Message, Template
from images.train.marked_texts import Conversation
from llmops_assets.records.conversation import carries_loss, for_template
from llmops_assets.training.folder_settings import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS = 4096
"""Rows whose own texts are looked at, evenly spread, and as many of the longest as a sixteenth of them."""


def stop_ids(base: Path, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens at which a model that is trained of the one in folder `base` will stop, as its own files say."""
    file = base / "generation_config.json"
    known = read_json(file if file.is_file() else base / "config.json").get("eos_token_id")
    ids = known if isinstance(known, list) else [known]
    return {one for one in (*ids, tokenizer.eos_token_id) if one is not None}


def some(rows: Sequence[Conversation]) -> list[Conversation]:
    """Of many rows those that are looked at."""
    if len(rows) <= ROWS:
        return list(rows)
    longest = sorted(rows, key=lambda row: sum(len(m["content"]) for m in row.messages), reverse=True)
    picked = [*rows[:: -(-len(rows) // ROWS)], *longest[: ROWS // 16]]
    return list({id(row): row for row in picked}.values())


def rewritten(
    tokenizer: "PreTrainedTokenizerBase", template: Template, rows: Sequence[Conversation]
) -> dict[str, list[str]]:
    """The rows whose texts `template` writes in other letters, and those whose white space it trims, by finding."""
    given = [for_template(row.messages, row.tools) for row in rows]
    texts = texts_of(tokenizer, template.training, [m for m, _ in given], tools=[tools for _, tools in given])
    found: dict[str, list[str]] = {}
    for row, text in zip(rows, texts, strict=True):
        if (name := _rewritten(row.messages, text)) is not None:
            found.setdefault(name, []).append(row.row_id)
    return found


def _rewritten(messages: Sequence[Message], text: str) -> str | None:
    """Whether texts show as they are, or without the white space around them."""
    written = [m for m in messages if m["content"].strip() and "</think>" not in m["content"]]
    if not all(_shows(message, message["content"].strip(), text) for message in written):
        return "content_rewritten"
    return None if all(_shows(message, message["content"], text) for message in written) else "content_trimmed"


def _shows(message: Mapping[str, Any], content: str, text: str) -> bool:
    if content in text or content in text.replace(BREAK, ""):
        return True
    # What a tool answered is JSON to some templates.
    return message["role"] == "tool" and json.dumps(content, ensure_ascii=False)[1:-1] in text


def stopped_early(
    tokenizer: "PreTrainedTokenizerBase", template: Template, rows: Sequence[Conversation], stops: Collection[int]
) -> tuple[list[str], str]:
    """The rows in whose answers one of the tokens `stops` stands, and these tokens."""
    held = control_tokens(tokenizer, template.training).any
    answers = [
        (row.row_id, message["content"])
        for row in rows
        for message in row.messages
        # A control token that somebody wrote is text, and cut before it is tokenised.
        if carries_loss(message) and message["content"] and not held.search(message["content"])
    ]
    if not stops or not answers:
        return [], ""
    encoded = tokenizer([text for _, text in answers], add_special_tokens=False)["input_ids"]
    within = [
        (row_id, found) for (row_id, _), ids in zip(answers, encoded, strict=True) if (found := {*ids} & {*stops})
    ]
    tokens = sorted({token for _, found in within for token in found})
    named = ", ".join(f"{tokenizer.decode([token])!r} ({token})" for token in tokens)
    return list(dict.fromkeys(row_id for row_id, _ in within)), named
