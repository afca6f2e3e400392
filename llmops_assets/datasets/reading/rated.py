"""Rows of answers that were found good or bad: a prompt, one answer, and whether it is wanted (KTO)."""

from typing import Any

from llmops_assets.datasets.reading.chats import chat
from llmops_assets.datasets.reading.ratings import LABELS, label_of
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import unrecognised


def rated(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of a row with one answer and a label, and the fields that were used for it."""
    field = next((name for name in LABELS if row.get(name) is not None), None)
    if field is None:
        if "chosen" in row and "rejected" in row:
            raise RowFault("chosen", "two answers of which one is preferred: register the file as type rlhf_pair")
        raise unrecognised(row, "a label (true or false) beside messages or prompt and completion")
    label = label_of(row[field], field)
    content, used = chat({name: value for name, value in row.items() if name not in LABELS})
    turns = content["messages"]
    end = next((at + 1 for at in range(len(turns) - 1, -1, -1) if turns[at].role == "user"), 0)
    if not end:
        raise RowFault("messages", "no turn of the user, so there is no prompt")
    return {
        "prompt": turns[:end],
        "completion": turns[end:],
        "tools": content.get("tools"),
        "label": label,
    }, used | {field}
