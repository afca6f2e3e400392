"""Conversations whose turns stand between marks: MOSS by numbered turns or in one text, and Baize in one text."""

import re
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.translation import Row, Translated, without
from llmops_assets.datasets.reading.values import kind_of, text_of

_TURN = re.compile(r"turn_(\d+)")
_MARKED = re.compile(r"\A\s*(?:<\|[^|>]*\|>\s*:?|\[[^\]]*\]\s*:?)?(.*?)\s*(?:<eo\w>)?\s*\Z", re.DOTALL)
"""A text of MOSS between its marks: ``<|Human|>: …<eoh>``."""
_SPEAKER = re.compile(r"(?:\A|\s)\[\|?(Human|User|AI|Assistant|MOSS)\|?\]\s*:?[ \t]?")
_END = re.compile(r"\s*<eo[a-z]>\s*\Z")
_SPOKEN_BY = {"Human": "user", "User": "user", "AI": "assistant", "Assistant": "assistant", "MOSS": "assistant"}
_PLUGINS = ("Commands", "Tool Responses")
MARKED_TEXTS = ("plain_text", "input")


def is_moss(row: Mapping[str, Any]) -> bool:
    """Whether a row has its turns by number, as MOSS has them."""
    chat = row.get("chat")
    return isinstance(chat, dict) and bool(chat) and all(_TURN.fullmatch(str(name)) for name in chat)


def numbered_turns(row: Row) -> Translated | None:
    """The turns of a row of MOSS as messages, `meta_instruction` as their system prompt; None for any other row.

    RowFault for calls of plugins, which are in a syntax of their own.
    """
    if not is_moss(row):
        return None
    turns: list[Row] = []
    for name in sorted(row["chat"], key=lambda name: int(name.rpartition("_")[2])):
        turns += _exchange(row["chat"][name], f"chat.{name}")
    used, paths = {"chat"}, {"messages": "chat"}
    row = without(row, {"chat"}) | {"messages": turns}
    if isinstance(prompt := row.get("meta_instruction"), str) and prompt and not row.get("system"):
        row, used = without(row, {"meta_instruction"}) | {"system": prompt}, {*used, "meta_instruction"}
        paths["system"] = "meta_instruction"
    return Translated(row, used, paths, True)


def _exchange(value: Any, path: str) -> list[Row]:
    if not isinstance(value, dict) or not {"Human", "MOSS"} <= value.keys():
        raise RowFault(path, f"expected a turn with Human and MOSS, got {kind_of(value)}")
    said = {name: _MARKED.match(text_of(text, f"{path}.{name}"))[1].strip() for name, text in value.items()}
    for name in _PLUGINS:
        if said.get(name, "None") not in ("", "None"):
            raise RowFault(
                f"{path}.{name}",
                "a plugin is called in a syntax of MOSS's own: write calls as tool_calls, with tools beside the "
                "messages, or leave the row out",
            )
    thought = said.get("Inner Thoughts", "None")
    answer = {"role": "assistant", "content": said["MOSS"]}
    if thought not in ("", "None"):
        answer["reasoning_content"] = thought
    return [{"role": "user", "content": said["Human"]}, answer]


def marked_text(row: Row) -> Translated | None:
    """A conversation in one text with its speakers in brackets (``[|Human|] … [|AI|] …``), as Baize and the first MOSS
    write it; None for any other row. What stands before the first turn is the system prompt."""
    name = next((name for name in MARKED_TEXTS if is_marked(row.get(name))), None)
    if name is None or {"messages", "conversations", "output", "response"} & row.keys():
        return None
    text = row[name]
    found = list(_SPEAKER.finditer(text))
    ends = [one.start() for one in found[1:]] + [len(text)]
    turns = [
        {"role": _SPOKEN_BY[one[1]], "content": _END.sub("", text[one.end() : end]).strip()}
        for one, end in zip(found, ends, strict=True)
    ]
    if not turns[-1]["content"]:
        # Whose turn it would be.
        turns.pop()
    used = {name}
    before = text[: found[0].start()].strip()
    if not before and isinstance(row.get("prefix"), str):
        before, used = row["prefix"].strip(), {*used, "prefix"}
    if before:
        turns.insert(0, {"role": "system", "content": before})
    return Translated(without(row, used) | {"messages": turns}, used, {"messages": name}, in_text=True)


def is_marked(value: Any) -> bool:
    """Whether a text is a conversation with speakers in brackets, a person and the assistant among them."""
    if not isinstance(value, str):
        return False
    return {"user", "assistant"} <= {_SPOKEN_BY[found[1]] for found in _SPEAKER.finditer(value)}
