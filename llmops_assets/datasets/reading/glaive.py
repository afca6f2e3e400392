"""Conversations in one text with calls of functions, as Glaive writes them (`FUNCTION RESPONSE:`)."""

import json
import re
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault

_SPEAKER = re.compile(r"(?:\A|\n)[ \t]*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE|FUNCTION CALL)[ \t]*:[ \t]?")
_ROLES = {
    "SYSTEM": "system",
    "USER": "user",
    "ASSISTANT": "assistant",
    "FUNCTION CALL": "assistant",
    "FUNCTION RESPONSE": "tool",
}
_END = re.compile(r"\s*(?:<\|endoftext\|>\s*)+")
_CALL = "<functioncall>"
_ARGUMENTS = re.compile(r"""("arguments"\s*:\s*)'(.*)'(\s*\}\s*)\Z""", re.DOTALL)
_OFFERED = re.compile(
    r"\s+with access to the following functions\.?\s*(?:Use them if required)?\s*[-:]?\s*\Z", re.IGNORECASE
)


def is_transcript(value: Any) -> bool:
    """Whether a text is a conversation with these speakers, the user and the assistant among them."""
    return isinstance(value, str) and {"USER", "ASSISTANT"} <= {found[1] for found in _SPEAKER.finditer(value)}


def messages_of_transcript(text: str, path: str) -> list[dict[str, Any]]:
    """The turns of such a text as messages; RowFault for text before the first turn, and for calls that are none.

    `<|endoftext|>` ends a turn and is no part of it.
    """
    found = list(_SPEAKER.finditer(text))
    if not found or text[: found[0].start()].strip():
        raise RowFault(path, "expected turns that begin with USER: and ASSISTANT:, as Glaive writes them")
    ends = [one.start() for one in found[1:]] + [len(text)]
    messages = []
    for one, end in zip(found, ends, strict=True):
        spoken = text[one.end() : end]
        if "<|endoftext|>" in spoken.rstrip().removesuffix("<|endoftext|>"):
            raise RowFault(path, "<|endoftext|> stands inside of a turn: text behind it belongs to nobody")
        spoken = _END.sub("", spoken).strip()
        role = _ROLES[one[1]]
        if role == "assistant" and _CALL in spoken:
            before, _, call = spoken.partition(_CALL)
            messages.append({"role": role, "content": before.strip(), "tool_calls": [_call(call, path)]})
        elif spoken or role != "assistant" or end != len(text):
            messages.append({"role": role, "content": spoken})
    return messages


def _call(text: str, path: str) -> dict[str, Any]:
    """A call as Glaive writes it: JSON, but for its arguments, which are JSON in single quotes."""
    text = text.strip()
    if quoted := _ARGUMENTS.search(text):
        text = f"{text[: quoted.start()]}{quoted[1]}{json.dumps(_unescaped(quoted[2]))}{quoted[3]}"
    try:
        call = json.loads(text)
    except ValueError as error:
        raise RowFault(path, f"behind {_CALL} stands no call as JSON: {error}") from None
    if not isinstance(call, dict):
        raise RowFault(path, f"behind {_CALL} stands no call with a name")
    return call


def _unescaped(arguments: str) -> str:
    """JSON in single quotes, in which an apostrophe is escaped as no JSON has it."""
    return arguments.replace("\\'", "'")


def system_and_functions(text: str, path: str) -> tuple[str, list[dict[str, Any]]]:
    """A system prompt without the functions that it lists, and these; RowFault where the list is no JSON."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    start = re.search(r"^\s*[\[{]", text, re.MULTILINE)
    if start is None:
        return text, []
    at, decoder, functions = start.end() - 1, json.JSONDecoder(), []
    while at < len(text) and text[at] in "[{":
        try:
            one, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise RowFault(path, f"the functions in the system prompt are no JSON: {error}") from None
        functions += one if isinstance(one, list) else [one]
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
    if not all(isinstance(one, dict) and "name" in one for one in functions):
        return text, []
    before = _OFFERED.sub(".", text[: start.start()])
    return "\n".join(part for part in (before.strip(), text[at:].strip()) if part), functions
