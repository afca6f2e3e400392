"""Rows of preferences: a prompt, the answer that was chosen and the one that was rejected."""

from typing import Any

from llmops_assets.datasets.reading.chats import alpaca_prompt, refuse_unheeded, tools_of, with_system
from llmops_assets.datasets.reading.messages import Message, message_of, messages_of
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import first_of, text_of, unrecognised


def _answer(value: Any, path: str) -> list[Message]:
    if isinstance(value, str):
        return [Message("assistant", value)]
    if isinstance(value, dict):
        return [message_of(value, path)]
    return messages_of(value, path)


def preference(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of a row that prefers one answer to another, and the fields that were used for it."""
    if "chosen" not in row or "rejected" not in row:
        raise unrecognised(row, "chosen and rejected, with a prompt or as whole conversations")
    refuse_unheeded(row)
    tools, used = tools_of(row)
    chosen, rejected = _answer(row["chosen"], "chosen"), _answer(row["rejected"], "rejected")
    used |= {"chosen", "rejected"}
    name = first_of(row, ("prompt", "conversations", "messages", "question", "query", "instruction"))
    if name is None:
        # Whole conversations: the prompt is what both begin with.
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if shared == 0:
            raise RowFault("chosen", "chosen and rejected share no beginning that could be the prompt")
        prompt = with_system(chosen[:shared], row)
        answers = {"chosen": chosen[shared:], "rejected": rejected[shared:]}
        return {"prompt": prompt, **answers, "tools": tools}, used | {"system"}
    if name == "instruction":
        prompt, asking = alpaca_prompt(row)
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools}, used | asking
    value = row[name]
    prompt = messages_of(value, name) if isinstance(value, list) else [Message("user", text_of(value, name))]
    prompt = with_system(prompt, row)
    # TRL's conversational shape repeats the prompt in both answers.
    if len(chosen) > len(prompt) and chosen[: len(prompt)] == prompt:
        chosen = chosen[len(prompt) :]
    if len(rejected) > len(prompt) and rejected[: len(prompt)] == prompt:
        rejected = rejected[len(prompt) :]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools}, used | {name, "system"}
