"""What a model was sent beside the user's last message: instructions, earlier turns, results of tools, and tools."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

MOST_BYTES = 64 * 1024
_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
_LEFT_OUT = "left_out"


@dataclass(frozen=True)
class Sent:
    """The messages that a model was sent, in the shape of OpenAI's chat API, and the tools that it was offered.

    missing: why they are not on record, None where they are.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    missing: str | None = None

    @classmethod
    def alone(cls, question: str) -> "Sent":
        """A question, and nothing else."""
        return cls(({"role": "user", "content": question},))

    @classmethod
    def after(cls, turns: Iterable[tuple[str, str]], question: str) -> "Sent":
        """A question behind what was asked and answered before it."""
        pairs = (({"role": "user", "content": q}, {"role": "assistant", "content": a}) for q, a in turns)
        return cls((*(message for pair in pairs for message in pair), *cls.alone(question).messages))

    @property
    def is_lone(self) -> bool:
        """Whether the user's question was all that was sent."""
        return len(self.messages) == 1 and not self.tools

    @property
    def conversation(self) -> str:
        """The messages as one text: the question by itself, where it was all that was sent."""
        if self.is_lone:
            return str(self.messages[0]["content"])
        return "\n\n".join(f"{message['role']}: {_said(message)}" for message in self.messages)


def context_of(body: Mapping[str, Any]) -> tuple[int, str | None]:
    """How many messages a request has (1 where it is no chat), and as JSON what of it is more than one question.

    body: as it was checked. What is no text, or longer than `MOST_BYTES`, is not kept: the JSON says so then.
    """
    messages = body.get("messages")
    if not isinstance(messages, list):
        prompt = body.get("prompt")
        # A list of numbers is the tokens of one.
        if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
            return len(prompt), _left_out("it asked several things at once")
        return 1, None
    if (body.get("n") or 1) > 1:
        return len(messages), _left_out(f"it asked for {body['n']} answers, and nobody knows which one was rated")
    tools = body.get("tools") or body.get("functions") or []
    first = messages[0]
    if len(messages) == 1 and not tools and first["role"] == "user" and isinstance(first["content"], str):
        return 1, None
    if (other := next(_other_parts(messages), None)) is not None:
        return len(messages), _left_out(f"it had a part that is no text ({other})")
    kept: dict[str, Any] = {"messages": [_plain(message) for message in messages]}
    if tools:
        kept["tools"] = tools
    encoded = msgspec.json.encode(kept)
    if len(encoded) > MOST_BYTES:
        return len(messages), _left_out(f"it was longer than {MOST_BYTES:,} bytes")
    return len(messages), encoded.decode()


def sent_of(row: Mapping[str, Any]) -> Sent:
    """What was sent in a request of the log: a row with `query`, `turns` and `context` of the table of exposures.

    Without `turns`, in what an earlier version logged, nobody knows of more than the question.
    """
    context, turns = row.get("context"), row.get("turns")
    if context is None:
        if turns is not None and turns > 1:
            return Sent(missing="it was taken out of the log")
        return Sent.alone(row["query"])
    found = msgspec.json.decode(context)
    if _LEFT_OUT in found:
        return Sent(missing=str(found[_LEFT_OUT]))
    return Sent(tuple(found["messages"]), tuple(found.get("tools", ())))


def masked(context: str, mask: Callable[[str], str]) -> str:
    """A context (`context_of`) whose texts went through `mask`, each by itself: what is JSON in it stays JSON."""
    found = msgspec.json.decode(context)
    changed = {name: value if name == _LEFT_OUT else _mapped(value, mask) for name, value in found.items()}
    return context if changed == found else msgspec.json.encode(changed).decode()


def texts(context: str) -> Iterator[str]:
    """Every text in a context."""
    found: list[str] = []
    masked(context, lambda text: found.append(text) or text)
    yield from found


_NAMES = frozenset({"role", "type", "id", "tool_call_id"})
"""Whose values say what something is, and of nobody anything."""


def _mapped(value: Any, mask: Callable[[str], str], key: str = "") -> Any:
    if isinstance(value, str):
        return value if key in _NAMES else mask(value)
    if isinstance(value, list):
        return [_mapped(one, mask, key) for one in value]
    if isinstance(value, dict):
        return {name: _mapped(one, mask, name) for name, one in value.items()}
    return value


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: message[name] for name in _FIELDS if message.get(name) is not None}
    if isinstance(content := kept.get("content"), list):
        # As the gateway has the question of parts.
        kept["content"] = " ".join(part[part["type"]] for part in content)
    return kept


def _other_parts(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for message in messages:
        for part in message["content"] if isinstance(message.get("content"), list) else ():
            if part["type"] not in ("text", "refusal"):
                yield str(part.get("type"))[:40]


def _said(message: Mapping[str, Any]) -> str:
    """What a message says, with what it calls."""
    calls = [call.get("function", {}) for call in message.get("tool_calls") or ()]
    called = [f"{call.get('name')}({call.get('arguments')})" for call in calls]
    return "\n".join([*filter(None, [message.get("content")]), *called])


def _left_out(reason: str) -> str:
    return msgspec.json.encode({_LEFT_OUT: reason}).decode()
