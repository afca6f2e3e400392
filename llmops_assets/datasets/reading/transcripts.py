"""Conversations in one text whose turns begin with `Human:` and `Assistant:`, as in hh-rlhf."""

import re
from typing import Any

_SPEAKER = re.compile(r"(?:\A\s*|\n\s*)(?:#+\s*)?(Human|Assistant|User|System|H|A)\s*:[ \t]?")
_SPEAKERS = {
    "human": "user",
    "h": "user",
    "user": "user",
    "assistant": "assistant",
    "a": "assistant",
    "system": "system",
}


def transcript(text: Any) -> list[tuple[str, str]] | None:
    """The turns (role, text) of a conversation in one text, as hh-rlhf writes it; None where a text is none.

    ``\\n\\nHuman: … \\n\\nAssistant: …``; an assistant's turn at the end that is still to come is left out.
    """
    if not isinstance(text, str) or not (first := _SPEAKER.match(text)):
        return None
    if first[1].lower() not in ("human", "user", "h", "system"):
        return None
    # Letters alone are speakers only where the text begins with one: answers have lines that begin with "A:".
    short = len(first[1]) == 1
    found = [one for one in _SPEAKER.finditer(text) if (len(one[1]) == 1) == short]
    ends = [one.start() for one in found[1:]] + [len(text)]
    turns = [(_SPEAKERS[one[1].lower()], text[one.end() : end].strip()) for one, end in zip(found, ends, strict=True)]
    if turns and turns[-1] == ("assistant", ""):
        turns.pop()
    return turns


_OPEN = ("Assistant:", "ASSISTANT:", "assistant:")


def is_open_transcript(text: str) -> bool:
    """Whether a text ends where the assistant is to speak, after a turn of somebody else's."""
    return text.rstrip().endswith(_OPEN) and _SPEAKER.match(text) is not None
