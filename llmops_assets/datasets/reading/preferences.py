"""Rows of preferences: a prompt, the answer that was chosen and the one that was rejected."""

from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.chats import SYSTEM_KEYS, alpaca_prompt, refuse_unheeded, tools_of, with_system
from llmops_assets.datasets.reading.comparisons import check_scores, compared, only_text
from llmops_assets.datasets.reading.message import Message
from llmops_assets.datasets.reading.messages import message_of, messages_of
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.transcripts import transcript
from llmops_assets.datasets.reading.values import first_of, kind_of, text_of, unrecognised

_PROMPTS = ("prompt", "conversations", "messages", "question", "query", "instruction", "input", "history", "context")


def preference(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of a row that prefers one answer to another, and the fields that were used for it."""
    choice: set[str] = set()
    if "chosen" not in row or "rejected" not in row:
        found = compared(row)
        if found is None:
            raise _unrecognised(row)
        chosen_answer, rejected_answer, choice = found
        row = {name: value for name, value in row.items() if name not in choice} | {
            "chosen": chosen_answer,
            "rejected": rejected_answer,
        }
    refuse_unheeded(row)
    check_scores(row)
    tools, used = tools_of(row)
    chosen, rejected = _answer(row["chosen"], "chosen"), _answer(row["rejected"], "rejected")
    used |= choice or {"chosen", "rejected"}
    name = first_of(row, _PROMPTS)
    if name is None:
        prompt, chosen, rejected = _parted(chosen, rejected)
        return _content(with_system(prompt, row), chosen, rejected, tools), used | {*SYSTEM_KEYS}
    if name == "instruction":
        prompt, asking = alpaca_prompt(row)
        used |= asking
    else:
        prompt = with_system(_prompt(row[name], name), row)
        used |= {name, *SYSTEM_KEYS}
    prompt, chosen, rejected = _without_prompt(prompt, chosen, rejected)
    return _content(prompt, chosen, rejected, tools), used


OF_OPENAI = {"input", "preferred_output", "non_preferred_output"}
"""What a row of OpenAI's preference fine-tuning has."""


def of_openai(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of OpenAI's preference fine-tuning as one of chosen and rejected; what its input has beside the messages
    stands beside them. RowFault for an input that has none."""
    given = row["input"]
    if not isinstance(given, Mapping) or "messages" not in given:
        raise RowFault("input", f"expected an object with messages, got {kind_of(given)}")
    rest = {name: value for name, value in row.items() if name not in OF_OPENAI}
    beside = {name: value for name, value in given.items() if name != "messages"}
    answers = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
    return {**rest, **beside, "prompt": given["messages"], **answers}


def _unrecognised(row: Mapping[str, Any]) -> RowFault:
    if any(isinstance(row.get(name), bool) for name in ("label", "kto_tag")):
        return RowFault(
            "label", "one answer that was found good or bad, and not two of which one is preferred: type kto"
        )
    return unrecognised(row, "chosen and rejected, with a prompt or as whole conversations")


def _content(
    prompt: list[Message], chosen: list[Message], rejected: list[Message], tools: str | None
) -> dict[str, Any]:
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if any(message.role == "user" for message in answer):
            raise RowFault(
                name,
                "the two conversations part before their last answer: only what follows one and the same prompt can be "
                "compared",
            )
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools}


def _answer(value: Any, path: str) -> list[Message]:
    if isinstance(value, str):
        turns = transcript(value)
        return [Message("assistant", value)] if turns is None else _spoken(turns, path)
    if isinstance(value, dict):
        return [message_of(value, path)]
    if value is None:
        raise RowFault(path, f"expected an answer, got {kind_of(value)}")
    return messages_of(value, path)


def _prompt(value: Any, path: str) -> list[Message]:
    if isinstance(value, list):
        return messages_of(value, path)
    if isinstance(value, dict) and isinstance(value.get("full_text"), str):
        # WebGPT keeps where a question is from beside it.
        return [Message("user", value["full_text"])]
    value = only_text(value, path)
    turns = transcript(value)
    return [Message("user", text_of(value, path))] if turns is None else _spoken(turns, path)


def _spoken(turns: list[tuple[str, str]], path: str) -> list[Message]:
    return [Message(role, text, path=f"{path}[{index}]") for index, (role, text) in enumerate(turns)]


def _parted(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """What two whole conversations begin with, which is the prompt, and what each goes on with."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if not any(message.role == "user" for message in chosen[:shared]):
        raise RowFault(
            "chosen",
            "chosen and rejected share no beginning that could be the prompt: give it in `prompt`, or write both as "
            "whole conversations",
        )
    return chosen[:shared], chosen[shared:], rejected[shared:]


def _without_prompt(
    prompt: list[Message], chosen: list[Message], rejected: list[Message]
) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt and answers where the answers repeat the prompt, or its system message alone, as many files have it."""
    systems = [answer[0] if answer and answer[0].role == "system" else None for answer in (chosen, rejected)]
    own = prompt[0] if prompt and prompt[0].role == "system" else None
    for name, system in zip(("chosen", "rejected"), systems, strict=True):
        if system is not None and own is not None and system != own:
            raise RowFault(f"{name}[0]", "its system message is another than that of the prompt")
    if systems[0] is not None or systems[1] is not None:
        if own is None and systems[0] != systems[1]:
            raise RowFault(
                "rejected[0]", "chosen and rejected are told different things by the system: one prompt, please"
            )
        prompt = prompt if own is not None else [systems[0], *prompt]
        turns = prompt[1:]
    else:
        turns = prompt[1:] if own is not None else prompt
    answers = []
    for answer, system in zip((chosen, rejected), systems, strict=True):
        rest = answer if system is None else answer[1:]
        if system is None and len(rest) > len(prompt) and rest[: len(prompt)] == prompt:
            rest = rest[len(prompt) :]
        elif turns and len(rest) > len(turns) and rest[: len(turns)] == turns:
            rest = rest[len(turns) :]
        answers.append(rest)
    return prompt, *answers
