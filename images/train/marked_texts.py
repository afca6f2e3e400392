"""Marks the texts of a conversation, and finds those that a chat template leaves out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from images.chat_rendering import text_of
from images.train.chat import Message, Template, Tools
from llmops_assets.records.conversation import carries_loss, for_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Conversation:
    """A row as it is rendered: its id, its messages, and the tools that it may call."""

    row_id: str
    messages: Sequence[Message]
    tools: Tools = None


def last_answer(row_id: str, prompt: Sequence[Message], answer: Sequence[Message], tools: Tools) -> Conversation:
    """A prompt with an answer to it, of which the answer alone is trained: what preferences and ratings are made of."""
    before = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in prompt]
    return Conversation(row_id, [*before, *answer], tools)


def shape_of(row: Conversation) -> Shape:
    """What of a conversation decides how a template writes it."""
    return (
        row.tools is not None and row.tools != "[]",
        *(
            (
                message["role"],
                not message["content"],
                message["content"] != message["content"].strip(),
                "</think>" in message["content"],
                bool(message.get("tool_calls")),
                bool(message.get("reasoning_content")),
                message.get("weight") == 0,
            )
            for message in row.messages
        ),
    )


def _mark(turn: int, part: str) -> str:
    return f"zq{turn}x{part}qz"


def marked(row: Conversation) -> tuple[list[Message], Tools, dict[tuple[int, str], str]]:
    """The row with a mark for each of its texts, and the marks by turn and field."""
    marks: dict[tuple[int, str], str] = {}
    messages: list[Message] = []

    def mark(turn: int, part: str) -> str:
        return marks.setdefault((turn, part), _mark(turn, part))

    for turn, message in enumerate(row.messages):
        given = {**message}
        if message["content"]:
            text = mark(turn, "content")
            thinks = "</think>" in message["content"]
            given["content"] = f"<think>\n{mark(turn, 'reasoning')}\n</think>\n\n{text}" if thinks else text
        if message.get("reasoning_content"):
            given["reasoning_content"] = mark(turn, "reasoning")
        if message.get("tool_calls"):
            calls = message["tool_calls"]
            calls = json.loads(calls) if isinstance(calls, str) else list(calls)
            # Of an id some templates ask a form, so it stays.
            given["tool_calls"] = json.dumps(
                [_call(call, mark(turn, f"calls{number}")) for number, call in enumerate(calls)]
            )
        messages.append(given)
    tools = row.tools
    if shape_of(row)[0]:
        offered = json.loads(tools) if isinstance(tools, str) else list(tools or [])
        tools = json.dumps([_tool(tool, mark(-1, f"tools{number}")) for number, tool in enumerate(offered)])
    return messages, tools, marks


def _call(call: Mapping[str, Any], mark: str) -> dict[str, Any]:
    return {**call, "function": {"name": mark, "arguments": {f"{mark}key": f"{mark}value"}}}


def _tool(tool: Mapping[str, Any], mark: str) -> dict[str, Any]:
    function = {**tool.get("function", {}), "name": mark}
    return {**tool, "type": "function", "function": function}


def rendered(
    tokenizer: "PreTrainedTokenizerBase", template: str, messages: Sequence[Message], tools: Tools, prompt: bool
) -> str:
    """The text of a conversation under `template`, with its generation prompt where `prompt` asks for it."""
    given, offered = for_template(messages, tools)
    return text_of(tokenizer, template, given, tools=offered, add_generation_prompt=prompt)


def lost(
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
    messages: Sequence[Message],
    tools: Tools,
    marks: Mapping[tuple[int, str], str],
) -> list[str]:
    """Names of what is marked and does not show, where it is trained or where a server puts it before an answer."""
    trained = [turn for turn, message in enumerate(messages) if carries_loss(message)]
    last = trained[-1] if trained else len(messages) - 1
    whole = rendered(tokenizer, template.training, messages, tools, False)
    # The last answer is written with all that came before it; what comes after is nobody's context.
    missing = {key for key, mark in marks.items() if key[0] <= last and mark not in whole}
    for turn in trained:
        before = rendered(tokenizer, template.serving, messages[:turn], tools, True) if turn else whole
        missing |= {key for key, mark in marks.items() if key[0] < turn and mark not in before}
    names = []
    for turn, part in sorted(missing):
        role = messages[turn]["role"] if turn >= 0 else "tools"
        if part == "reasoning" and turn != last:
            # A turn without loss is trained by nobody, with or without its reasoning.
            if carries_loss(messages[turn]):
                names.append("earlier_reasoning_dropped")
        elif part == "reasoning":
            names.append("reasoning_dropped")
        elif part.startswith("calls"):
            names.append("tool_calls_dropped")
        else:
            names.append(_DROPPED.get(role, "turn_dropped"))
    return names


_DROPPED = {
    "system": "system_prompt_dropped",
    "assistant": "answer_dropped",
    "tool": "tool_result_dropped",
    "tools": "tools_dropped",
}
