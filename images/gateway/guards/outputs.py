"""Holds answers to their endpoint's guards: whole ones, and streams across the borders of their events."""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from images.gateway.guards.channel import Channel, Refused
from images.gateway.guards.judges import Judges
from images.gateway.guards.texts import change_json
from images.gateway.guards.verdict import Verdict
from llmops_assets.specs.guards import OutputGuards

log = logging.getLogger("gateway.guards")

FILTERED = "content_filter"
_NO_TEXT = frozenset(("role", "tool_calls", "function_call", "id", "type"))
# Of a message: what is no text, and of a choice what is judged as that or says nothing.
_NO_WORDS = frozenset(("audio", "images", "image_url", "delta", "message", "logprobs", "prompt_logprobs", "tokens"))
_DATA = re.compile(rb"^data:[ ]?(.*)$")
_MOST_TOOL_CHARACTERS = 256 * 1024
_PLAIN = frozenset(("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"))
_PLAIN_TYPES = frozenset((str, type(None)))
_WORST = ("pass", "mask", "refuse")


@dataclass
class _Choice:
    """What is known of one choice of an answer; `tools` are calls, held until they are whole, by their place, and
    `places` says at which place the call is that pieces with an index belong to now.
    """

    channels: dict[str, Channel] = field(default_factory=dict)
    tools: dict[int, dict[str, Any]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    is_over: bool = False
    had_role: bool = False


class AnswerGuard:
    """The guards of one answer. `verdicts` has one verdict a guard once the answer is over.

    A choice that is refused ends with `finish_reason: content_filter`; of what it would have said nothing more comes.
    """

    def __init__(self, guards: OutputGuards, judges: Judges) -> None:
        self._guards = guards
        self._judges = judges
        self._choices: dict[int, _Choice] = {}
        self._verdicts: dict[str, Verdict] = {}

    @property
    def verdicts(self) -> list[Verdict]:
        return list(self._verdicts.values())

    async def whole(self, body: bytes, content: dict[str, Any] | None = None) -> bytes:
        """A complete answer, also decoded (`content`, which is changed); what is none of choices passes as it is."""
        answer = _object(body) if content is None else content
        choices = answer.get("choices") if answer else None
        if not isinstance(choices, list):
            return body
        is_same = True
        for number, choice in enumerate(choices):
            if isinstance(choice, dict):
                is_same = not await self._whole_choice(number, choice) and is_same
        return body if is_same else msgspec.json.encode(answer)

    async def _whole_choice(self, number: int, choice: dict[str, Any]) -> bool:
        """Change a choice in place; whether it was."""
        known = self._choices.setdefault(number, _Choice())
        message = choice.get("message")
        holder = message if isinstance(message, dict) else choice
        # Nearly all are texts and nothing else.
        is_plain = _PLAIN_TYPES.issuperset(map(type, holder.values()))
        changed = not is_plain and as_texts(holder)
        try:
            for name in () if is_plain else nested_fields(holder):
                judged = await self._nested(known, holder[name])
                changed |= judged != holder[name]
                holder[name] = judged
            for name in _text_fields(holder):
                channel = self._channel(known, name)
                text = await channel.whole(holder[name])
                changed |= text != holder[name]
                holder[name] = text
                if channel.is_cut:
                    choice["finish_reason"] = "length"
            for call in () if is_plain else _functions(holder):
                arguments = await self._arguments(known, call["arguments"])
                changed |= arguments != call["arguments"]
                call["arguments"] = arguments
        except Refused:
            changed = True
            for name in _text_fields(holder):
                holder[name] = ""
            for name in ("tool_calls", "function_call", *nested_fields(holder)):
                holder.pop(name, None)
            choice["finish_reason"] = FILTERED
        finally:
            self._note(known)
        return changed

    async def stream(
        self, events: AsyncIterator[bytes], *, choices: int, wants_usage: bool, on_over: Callable[[], None]
    ) -> AsyncIterator[bytes]:
        """The events that the client gets, in order.

        `choices` is how many the request asked for. Once all of them were refused the model server is read no further,
        after `on_over`, unless the client waits for counts (`wants_usage`).
        """
        head: dict[str, Any] = {}
        is_done = False
        try:
            async for block in events:
                out = bytearray()
                for line in block.split(b"\n"):
                    line = line.rstrip(b"\r")
                    match = _DATA.match(line)
                    if match is None:
                        # Comments keep a connection open; a field of an event goes with its data.
                        out += line + b"\n\n" if line.startswith(b":") else b""
                        continue
                    data = match[1].strip()
                    if data == b"[DONE]":
                        is_done = True
                        out += await self._rest(head)
                        out += b"data: [DONE]\n\n"
                        continue
                    chunk = _object(data)
                    if chunk is None:
                        # What cannot be read cannot be judged.
                        continue
                    if isinstance(chunk.get("choices"), list):
                        head = {key: chunk[key] for key in ("id", "object", "created", "model") if key in chunk}
                        chunk = await self._chunk(chunk)
                    out += b"" if chunk is None else _written(chunk)
                if out:
                    yield bytes(out)
                if self._all_over(choices) and not wants_usage and not is_done:
                    on_over()
                    yield b"data: [DONE]\n\n"
                    return
            if not is_done and (rest := await self._rest(head)):
                yield rest
        finally:
            for choice in self._choices.values():
                self._note(choice)

    def _all_over(self, choices: int) -> bool:
        refused = [c for c in self._choices.values() if c.is_over]
        return len(refused) >= choices and any(v.outcome == "refuse" for v in self._verdicts.values())

    async def _chunk(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """An event with what may be passed on of it; None where nothing is."""
        if not chunk["choices"]:
            return chunk
        out = []
        for number, choice in enumerate(chunk["choices"]):
            if isinstance(choice, dict):
                index = choice.get("index", number)
                out += await self._delta(index if isinstance(index, int) else number, choice)
        if not out:
            # Counts, and what the gateway itself says of an answer, wait for no text.
            return {**chunk, "choices": []} if chunk.get("usage") or chunk.keys() - _PLAIN else None
        return {**chunk, "choices": out}

    async def _delta(self, index: int, choice: dict[str, Any]) -> list[dict[str, Any]]:
        known = self._choices.setdefault(index, _Choice())
        if known.is_over:
            return []
        delta = choice.get("delta")
        if delta is None and "delta" in choice:
            # What is held back goes out in it.
            delta = choice["delta"] = {}
        holder = delta if isinstance(delta, dict) else choice
        as_texts(holder)
        for name in nested_fields(holder):
            # It comes in pieces that nobody could put together to judge them.
            log.warning("`%s` is left out of a stream: its texts cannot be judged", name)
            del holder[name]
        finish = choice.get("finish_reason")
        try:
            for name in _text_fields(holder):
                holder[name] = await self._channel(known, name).feed(holder[name])
            self._hold_tools(known, holder)
            is_cut = any(channel.is_cut for channel in known.channels.values())
            if finish is None and not is_cut:
                return [choice] if _says_something(holder, known) else []
            for name, channel in known.channels.items():
                rest = await channel.end()
                if rest:
                    holder[name] = (holder.get(name) or "") + rest
            out = []
            if known.tools:
                out = [{"index": index, "delta": {"tool_calls": await self._whole_tools(known)}, "finish_reason": None}]
            known.is_over = True
            self._note(known)
            text = [{**choice, "finish_reason": None}] if out and _says_something(holder, known) else []
            end = {**choice, "delta": {}} if out else choice
            return [*text, *out, {**end, "finish_reason": "length" if is_cut else finish}]
        except Refused:
            known.is_over = True
            known.tools.clear()
            self._note(known)
            empty = {"delta": {}} if isinstance(delta, dict) else {"text": ""}
            return [{"index": index, **empty, "finish_reason": FILTERED}]

    def _channel(self, known: _Choice, name: str) -> Channel:
        if name not in known.channels:
            known.channels[name] = Channel(self._guards, self._judges)
        return known.channels[name]

    def _hold_tools(self, known: _Choice, holder: dict[str, Any]) -> None:
        """Put pieces of tool calls together: nobody can use one before it is whole."""
        calls = holder.pop("tool_calls", None) or []
        old = holder.pop("function_call", None)
        pieces = [(call.get("index", n), call) for n, call in enumerate(calls) if isinstance(call, dict)]
        pieces += [(-1, {"function": old})] if isinstance(old, dict) else []
        for number, piece in pieces:
            place = known.places.setdefault(number, number)
            before, id = known.tools.get(place, {}).get("id"), piece.get("id")
            if before and id and before != id:
                # Some servers give each call of an answer the same index.
                place = known.places[number] = max(known.tools) + 1
            call = known.tools.setdefault(place, {"index": place, "function": {"arguments": ""}})
            function = piece.get("function") if isinstance(piece.get("function"), dict) else {}
            # What some repeat with later pieces is null or empty there.
            call.update({k: v for k, v in piece.items() if k not in ("function", "index") and v not in (None, "")})
            arguments = function.get("arguments")
            call["function"].update({k: v for k, v in function.items() if k != "arguments" and v not in (None, "")})
            call["function"]["arguments"] += as_arguments(arguments)
            if len(call["function"]["arguments"]) > _MOST_TOOL_CHARACTERS:
                self._verdicts["length"] = Verdict(
                    "length", "out", "refuse", f"a tool call of more than {_MOST_TOOL_CHARACTERS} characters", None
                )
                raise Refused

    async def _whole_tools(self, known: _Choice) -> list[dict[str, Any]]:
        calls = [known.tools[number] for number in sorted(known.tools)]
        for call in calls:
            call["function"]["arguments"] = await self._arguments(known, call["function"]["arguments"])
        known.tools.clear()
        return calls

    async def _arguments(self, known: _Choice, text: str) -> str:
        """The arguments of one tool call: the strings in its JSON, each judged as a text of its own."""
        strings: list[str] = []
        change_json(text, lambda part: strings.append(part) or part)
        new: list[str] = []
        for number, part in enumerate(strings):
            channel = Channel(self._guards, self._judges)
            known.channels[f"arguments {len(known.channels)} {number}"] = channel
            new.append(await channel.feed(part) + await channel.end())
        if new == strings:
            return text
        replaced = iter(new)
        return change_json(text, lambda _part: next(replaced))

    async def _nested(self, known: _Choice, value: Any) -> Any:
        """Lists and objects of a message, with the strings in them judged."""
        written = json.dumps(value, ensure_ascii=False)
        return json.loads(await self._arguments(known, written))

    async def _rest(self, head: dict[str, Any]) -> bytes:
        """What is still held where a stream ended without saying why."""
        out = []
        for index, known in self._choices.items():
            if known.is_over:
                continue
            end = {"index": index, "delta": {}, "finish_reason": None}
            found = await self._delta(index, {**end, "finish_reason": "unknown"})
            out += [
                {**c, "finish_reason": None if c["finish_reason"] == "unknown" else c["finish_reason"]} for c in found
            ]
        out = [choice for choice in out if choice.get("delta") or choice["finish_reason"]]
        return _written({**head, "choices": out}) if out else b""

    def _note(self, known: _Choice) -> None:
        for channel in known.channels.values():
            self._add(channel.verdicts.values())

    def _add(self, verdicts: Iterable[Verdict]) -> None:
        """Add verdicts on a text up to those on the answer: the worst counts, figures of masks add up."""
        for verdict in verdicts:
            before = self._verdicts.get(verdict.guard)
            if (
                before is None
                or _WORST.index(verdict.outcome) > _WORST.index(before.outcome)
                or (verdict.outcome == before.outcome and verdict.reason is not None)
            ):
                self._verdicts[verdict.guard] = verdict


def as_texts(holder: dict[str, Any]) -> bool:
    """Bring what a server wrote of a message into OpenAI's shape, in which it can be judged; whether it was changed.

    Texts in parts are one text, a number is its digits, and the arguments of a call are a text of JSON.
    """
    changed = False
    for name in ("content", "text"):
        value = holder.get(name)
        if isinstance(value, list) and value and all(_text_of(part) is not None for part in value):
            holder[name], changed = "".join([_text_of(part) or "" for part in value]), True
        elif isinstance(value, int | float) and not isinstance(value, bool):
            holder[name], changed = str(value), True
    calls = holder.get("tool_calls") if isinstance(holder.get("tool_calls"), list) else []
    for call in [*calls, {"function": holder.get("function_call")}]:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and isinstance(function.get("arguments"), dict | list):
            function["arguments"], changed = as_arguments(function["arguments"]), True
    return changed


def as_arguments(value: Any) -> str:
    """Arguments of a call, or a piece of them, as text."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else ""


def nested_fields(holder: dict[str, Any]) -> list[str]:
    """Names of the lists and objects in a message, beside calls, that hold texts: whatever servers add to it."""
    return [name for name, value in holder.items() if isinstance(value, dict | list) and _holds_words(name, value)]


def _holds_words(name: str, value: Any) -> bool:
    if name in _NO_TEXT or name in _NO_WORDS:
        return False
    if isinstance(value, dict):
        return any(_holds_words(inner, part) for inner, part in value.items())
    if isinstance(value, list):
        return any(_holds_words("", part) for part in value)
    return isinstance(value, str) and bool(value)


def _text_of(part: Any) -> str | None:
    """The text of a part of a content; None where it is another kind of part."""
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None


def _text_fields(holder: dict[str, Any]) -> list[str]:
    """Names of the fields of a message or a piece of one that hold its texts, whatever a server calls them."""
    return [
        name
        for name, value in holder.items()
        if isinstance(value, str) and name not in _NO_TEXT and name not in ("finish_reason", "stop_reason")
    ]


def _functions(holder: dict[str, Any]) -> list[dict[str, Any]]:
    calls = holder.get("tool_calls") if isinstance(holder.get("tool_calls"), list) else []
    found = [call.get("function") for call in calls if isinstance(call, dict)] + [holder.get("function_call")]
    return [f for f in found if isinstance(f, dict) and isinstance(f.get("arguments"), str)]


def _says_something(holder: dict[str, Any], known: _Choice) -> bool:
    if holder.get("role") and not known.had_role:
        known.had_role = True
        return True
    return any(holder[name] for name in _text_fields(holder))


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _written(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
