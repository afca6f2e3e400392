"""The plain shapes of rows that whole blocks of lines are decoded as, and the keys that were in them."""

from collections import Counter
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec

from llmops_assets.datasets.reading.fates import LABELS, Fate, Fates
from llmops_assets.datasets.reading.json_faults import keys_in
from llmops_assets.datasets.reading.messages import CALLING, ROLE_NAMES

UNSET = msgspec.UNSET
Label = str | msgspec.UnsetType | None

SPOKEN = set(ROLE_NAMES) - set(CALLING)
"""Roles of messages that are nothing but text."""


class Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A message of role and content alone."""

    role: str
    content: str


class Turn(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The same as ShareGPT spells it."""

    role: str = msgspec.field(name="from")
    content: str = msgspec.field(name="value")


class Known(msgspec.Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    """What all fast shapes may have beside their content. Any other field sends the block down the slow path."""

    metadata: dict[str, Any] | msgspec.UnsetType | None = UNSET
    category: Label = UNSET
    source: Label = UNSET
    quality_score: float | msgspec.UnsetType | None = UNSET
    id: str | int | msgspec.UnsetType | None = UNSET


class Chat(Known):
    """OpenAI's messages."""

    messages: list[Message]


class ShareGpt(Known):
    """ShareGPT's conversations."""

    conversations: list[Turn]

    @property
    def messages(self) -> list[Turn]:
        return self.conversations


class Text(Known):
    """A document."""

    text: str


class PromptCompletion(Known):
    """One question and answer."""

    prompt: str
    completion: str


class QuestionAnswer(Known):
    """One question and answer."""

    question: str
    answer: str


class Alpaca(Known):
    """An instruction, what it is about, and the answer."""

    instruction: str
    output: str
    input: str | msgspec.UnsetType = UNSET


CHATS = (Chat, ShareGpt, PromptCompletion, QuestionAnswer, Alpaca)
SHAPES: dict[str, tuple[type[Known], ...]] = {"sft_pair": CHATS, "eval_suite": CHATS, "pretrain_corpus": (Text,)}


_CONTENT: dict[type, tuple[str, ...]] = {
    Text: ("text",),
    PromptCompletion: ("prompt", "completion"),
    QuestionAnswer: ("question", "answer"),
}


_BESIDE = ("metadata", "category", "source", "quality_score", "id")


class Keys:
    """The keys of the rows of one block, which are all of one shape, as their decoder found them.

    Counted column by column: what is done for each of a million rows is felt.
    """

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows
        given = list(filter(None, map(attrgetter("metadata"), rows)))
        self._metadata = Counter(map(tuple, given))
        self._beside = {name: len(rows) - list(map(attrgetter(name), rows)).count(UNSET) for name in _BESIDE}
        self._inside = sum(len(names) * count for names, count in self._metadata.items())
        if not {dict, list}.isdisjoint(map(type, chain.from_iterable(map(dict.values, given)))):
            self._inside = sum(map(keys_in, given))

    @property
    def written(self) -> int:
        """All keys of the rows, at every depth."""
        return sum(_content_keys(self._rows).values()) + self._inside + sum(self._beside.values())

    def fates(self) -> Fates:
        """What became of them."""
        found: Counter[tuple[str, Fate]] = Counter()
        for key, count in _content_keys(self._rows, each=False).items():
            found[key, "used"] += count
        for name, count in self._beside.items():
            if count and name != "metadata":
                found[name, "used" if name in LABELS else "metadata"] += count
        for names, count in self._metadata.items():
            for name in names:
                found[f"metadata.{name}", "used" if name in LABELS else "metadata"] += count
        return Fates(found)


def _content_keys(rows: list[Any], each: bool = True) -> dict[str, int]:
    """How often the keys of the content stand in rows of one shape, or, without `each`, in how many rows."""
    shape = type(rows[0])
    if shape in (Chat, ShareGpt):
        name, role, text = ("messages", "role", "content") if shape is Chat else ("conversations", "from", "value")
        lengths = list(map(len, map(attrgetter(name), rows)))
        turns = sum(lengths) if each else len(lengths) - lengths.count(0)
        return {name: len(rows), f"{name}[].{role}": turns, f"{name}[].{text}": turns}
    if shape is Alpaca:
        about = sum(row.input is not UNSET for row in rows)
        return {"instruction": len(rows), "output": len(rows), **({"input": about} if about else {})}
    return dict.fromkeys(_CONTENT[shape], len(rows))
