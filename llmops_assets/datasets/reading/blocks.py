"""Blocks that the content of a message is made of (Anthropic, Bedrock, Gemini, OpenAI) as texts, calls, results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmops_assets.datasets.reading.calls import json_text
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of, text_of
from llmops_assets.datasets.reading.weights import LOSS_KEYS

_TEXTS = ("text", "input_text", "output_text")
_THOUGHTS = ("thinking", "reasoning", "summary_text", "reasoning_text")
_BARE = ("text", "functionCall", "functionResponse", "function_call", "function_response", "toolUse", "toolResult",
         "reasoningContent")  # fmt: skip
"""Keys that say what a block is where no type does, as Gemini and Bedrock write it."""

_POINTS = ("cachePoint", "cache_point")
"""Blocks that say how a request is billed, and nothing to the model."""

_EMPTY = (None, "", [], {})


@dataclass
class Blocks:
    """What the blocks of one message hold, in order. `calls` and `results` are as OpenAI writes a call and a message of
    a tool; `rest` are other keys by their path below the message, for the metadata."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)
    glued: bool = False
    """Gemini's texts follow one another without anything between them; those of others are joined by line ends."""

    @property
    def text(self) -> str:
        return ("" if self.glued else "\n").join(self.texts)


def has_calls(content: Any) -> bool:
    """Whether a list of blocks has a call of a tool or the result of one."""
    return isinstance(content, list) and any(
        isinstance(block, dict) and (block.get("type") in _KINDS or not _CALLING.isdisjoint(block)) for block in content
    )


_VERCELS_CALLS = ("tool-call", "toolCall")
"""Calls as Vercel's AI SDK and agents that came of it write them."""

_KINDS = ("tool_use", "tool_result", "tool-result", *_VERCELS_CALLS)
_CALLING = {"functionCall", "functionResponse", "toolUse", "toolResult"}


def blocks_of(content: list[Any], path: str, key: str) -> Blocks:
    """The blocks of a message whose content stands at ``path.key``; RowFault naming the one that no model can read."""
    found = Blocks(glued=key == "parts")
    for index, block in enumerate(content):
        where, below = f"{path}.{key}[{index}]", f"{key}[{index}]"
        # A list of bare texts is as likely a list of answers as one text in pieces.
        if not isinstance(block, dict):
            raise RowFault(where, f"expected a part of a message (type and text), got {kind_of(block)}")
        used = _read(found, {name: item for name, item in block.items() if item is not None}, where)
        for name, item in block.items():
            if name in used or item is None:
                continue
            if name in LOSS_KEYS:
                raise RowFault(f"{where}.{name}", "loss on a part of a turn cannot be heeded: make it a turn")
            found.rest[f"{below}.{name}"] = item
    return found


def _read(found: Blocks, block: dict[str, Any], where: str) -> set[str]:
    """Add one block to what was found; the keys of it that were used."""
    kind = block.get("type", block.get("block_type"))
    named = {"type", "block_type"}
    if kind is None:
        kind = next((name for name in _BARE if name in block), None)
    if kind is None and any(name in block for name in _POINTS):
        return named
    if kind in _TEXTS:
        text = text_of(block.get("text"), f"{where}.text")
        if block.get("thought") is True:
            found.thoughts.append(text)
            return {*named, "text", "thought"}
        if found.calls and text.strip():
            raise RowFault(where, "a text behind a call in one turn: make it a turn of its own, behind the result")
        if not found.calls:
            found.texts.append(text)
        return {*named, "text"}
    if kind in _THOUGHTS:
        name = next((name for name in ("thinking", "reasoning", "text") if name in block), "text")
        found.thoughts.append(text_of(block.get(name), f"{where}.{kind}"))
        # What a signature signs is the thought itself.
        return {*named, name, "signature"}
    if kind == "reasoningContent":
        inner = block[kind].get("reasoningText") if isinstance(block[kind], dict) else None
        if not isinstance(inner, dict):
            raise RowFault(where, "a reasoning that is not written out: leave the block out")
        found.thoughts.append(text_of(inner.get("text"), f"{where}.{kind}.reasoningText.text"))
        return {*named, kind}
    if kind in ("tool_use", "toolUse", "functionCall", "function_call"):
        found.calls.append(_call(block if kind == "tool_use" else block[kind], where))
        return {*named, kind, *(("id", "name", "input", "caller") if kind == "tool_use" else ())}
    if kind in _VERCELS_CALLS:
        call = {"id": block.get("toolCallId", block.get("id")), "name": block.get("toolName", block.get("name"))}
        found.calls.append(_call({**block, **call}, where))
        return {*named, "toolCallId", "id", "toolName", "name", "input", "args", "arguments"}
    if kind == "tool-result":
        output = block.get("output", block.get("result"))
        if isinstance(output, dict) and output.keys() == {"type", "value"}:
            output = output["value"]
        result = {"id": block.get("toolCallId"), "name": block.get("toolName"), "content": output}
        found.results.append(_result(result, where))
        return {*named, "toolCallId", "toolName", "output", "result"}
    if kind in ("tool_result", "toolResult", "functionResponse", "function_response"):
        if found.texts and any(text.strip() for text in found.texts):
            raise RowFault(where, "the result of a call behind a text: results come first in a turn")
        found.results.append(_result(block if kind == "tool_result" else block[kind], where))
        return {*named, kind, *(("tool_use_id", "content") if kind == "tool_result" else ())}
    if kind == "refusal":
        raise RowFault(where, "a refusal as a part of its own: write it as text")
    if kind == "redacted_thinking":
        raise RowFault(where, "a thought that only Anthropic can read: leave the block out")
    what = f"of type {kind!r}" if kind is not None else f"with {', '.join(map(str, block)) or 'nothing'}"
    raise RowFault(where, f"a part {what}: models are trained on text alone, leave the row out")


def _call(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise RowFault(where, f"expected a call with its name, got {kind_of(given)}")
    arguments = next((given[name] for name in ("input", "args", "arguments") if given.get(name) is not None), {})
    return {"id": given.get("id", given.get("toolUseId")), "name": given.get("name"), "arguments": arguments}


def _result(given: Any, where: str) -> dict[str, Any]:
    """A message of a tool. Its text is the text of the blocks, and JSON of what is no text."""
    if not isinstance(given, Mapping):
        raise RowFault(where, f"expected the result of a call, got {kind_of(given)}")
    content = given["response"] if "response" in given else given.get("content")
    identity = next((given[name] for name in ("tool_use_id", "toolUseId", "id") if given.get(name)), None)
    result = {"role": "tool", "tool_call_id": identity, "name": given.get("name")}
    return {**result, "content": content if isinstance(content, str) else _result_text(content, where)}


def _result_text(content: Any, where: str) -> str:
    if content is None:
        return ""
    if not isinstance(content, list):
        return json_text(content, where)
    texts = []
    for index, block in enumerate(content):
        place = f"{where}.content[{index}]"
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            texts.append(block["text"])
        elif isinstance(block, dict) and block.get("json") is not None and len(block) == 1:
            texts.append(json_text(block["json"], place))
        elif isinstance(block, dict) and (set(block) & _MEDIA or block.get("type") in _MEDIA):
            raise RowFault(place, "a result that is no text: models are trained on text alone, leave the row out")
        else:
            return json_text(content, where)
    return "\n".join(texts)


_MEDIA = {"image", "image_url", "document", "video", "audio", "inlineData", "fileData", "search_result"}


def turns_of_blocks(item: dict[str, Any], key: str, path: str) -> list[dict[str, Any]]:
    """A message whose blocks hold calls or results, as messages that OpenAI would write: each result is a turn of a
    tool. RowFault for calls that no assistant makes, and for what is said beside results."""
    found = blocks_of(item[key], path, key)
    beside = {name: value for name, value in item.items() if name != key} | found.rest
    role = str(item.get("role", item.get("from", ""))).lower()
    if found.calls and found.results:
        raise RowFault(f"{path}.{key}", "a call and the result of one in the same turn: make them turns of their own")
    if found.results:
        if role not in ("user", "human", "tool", "function"):
            raise RowFault(f"{path}.{key}", f"a turn of role {role} holds the result of a call: that is the user's")
        if found.text.strip():
            raise RowFault(
                f"{path}.{key}",
                "the user speaks in the turn that gives the results of calls, which no chat template has a place for: "
                "let the assistant answer first, or leave the words out",
            )
        return [*found.results[:-1], {**_unspoken(beside), **found.results[-1]}]
    thought = {"reasoning_content": "\n".join(found.thoughts)} if found.thoughts else {}
    return [{**beside, key: found.text, **thought, "tool_calls": found.calls}]


def _unspoken(beside: Mapping[str, Any]) -> dict[str, Any]:
    """What a turn of results has beside its role, in its last message."""
    return {name: value for name, value in beside.items() if name not in ("role", "from") and value not in _EMPTY}
