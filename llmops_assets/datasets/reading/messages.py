"""Conversations in the spellings that users bring: role and content, from and value, or Alpaca's instruction."""

from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of, text_of

Message = tuple[str, str]
ROLE_NAMES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def messages_of(value: Any, path: str) -> list[Message]:
    """Messages in either spelling: role and content, or from and value."""
    if not isinstance(value, list):
        raise RowFault(path, f"expected a list of messages, got {kind_of(value)}")
    return [message_of(item, f"{path}[{index}]") for index, item in enumerate(value)]


def message_of(item: Any, path: str) -> Message:
    """One message; RowFault naming `path` when it is none."""
    if not isinstance(item, dict):
        raise RowFault(path, f"expected a message, got {kind_of(item)}")
    if "role" in item:
        role = text_of(item["role"], f"{path}.role")
        text = text_of(item.get("content"), f"{path}.content")
    elif "from" in item:
        role = text_of(item["from"], f"{path}.from")
        text = text_of(item.get("value"), f"{path}.value")
    else:
        raise RowFault(path, "a message needs role and content (or from and value)")
    return ROLE_NAMES.get(role, role), text


def alpaca_prompt(row: dict[str, Any]) -> list[Message]:
    """The turns that an Alpaca row asks with: its system prompt, its history, its instruction with the input."""
    turns: list[Message] = []
    if row.get("system"):
        turns.append(("system", text_of(row["system"], "system")))
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowFault("history", f"expected a list of pairs, got {kind_of(history)}")
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowFault(f"history[{index}]", "expected a pair of question and answer")
        turns.append(("user", text_of(pair[0], f"history[{index}][0]")))
        turns.append(("assistant", text_of(pair[1], f"history[{index}][1]")))
    asked = text_of(row["instruction"], "instruction")
    if row.get("input"):
        asked = f"{asked}\n\n{text_of(row['input'], 'input')}"
    turns.append(("user", asked))
    return turns
