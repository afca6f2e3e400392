"""Documents of 모두의말뭉치 (National Institute of Korean Language) as rows: dialogues as messages, prose as text."""

from collections.abc import Mapping
from typing import Any

_PROSE = ("paragraph", "sentence")


def is_document(value: Any) -> bool:
    """Whether an object is a document of the corpus: a list of utterances, paragraphs or sentences with their form."""
    return isinstance(value, dict) and _parts(value) is not None


def _parts(value: Mapping[str, Any]) -> str | None:
    for name in ("utterance", *_PROSE):
        parts = value.get(name)
        if isinstance(parts, list) and parts and all(isinstance(one, dict) and "form" in one for one in parts):
            return name if name != "utterance" or all("speaker_id" in one for one in parts) else None
    return None


def row_of_document(value: Mapping[str, Any]) -> dict[str, Any]:
    """The row that a document is.

    Of a dialogue who speaks first asks (`user`), and the other answers; what one says without a break is one turn. The
    last words of who asks, which nobody answers, stand in `not_answered`. More than two speakers keep their numbers as
    roles, so that the row is refused until they are named. All that is said of a part beside its form is metadata.
    """
    name = _parts(value) or _PROSE[0]
    rest = {**value, name: [{key: item for key, item in one.items() if key != "form"} for one in value[name]]}
    if name in _PROSE:
        return rest | {"text": "\n".join(str(one["form"]).strip() for one in value[name] if one["form"])}
    speakers = list(dict.fromkeys(str(one["speaker_id"]) for one in value[name]))
    roles = dict(zip(speakers, ("user", "assistant"), strict=False)) if len(speakers) == _TWO else {}
    turns: list[tuple[str, list[Any]]] = []
    for one in value[name]:
        if not turns or turns[-1][0] != str(one["speaker_id"]):
            turns.append((str(one["speaker_id"]), []))
        turns[-1][1].append(one["form"])
    messages = [{"role": roles.get(speaker, speaker), "content": _together(texts)} for speaker, texts in turns]
    messages = [message for message in messages if message["content"] != ""]
    if roles and messages and messages[-1]["role"] == "user":
        rest["not_answered"] = messages.pop()["content"]
    return rest | {"speakers": speakers, "messages": messages}


_TWO = 2


def _together(texts: list[Any]) -> Any:
    """The texts of one turn, a line each; what is no text stays, to be refused where it stands."""
    if not all(isinstance(text, str) for text in texts):
        return next(text for text in texts if not isinstance(text, str))
    return "\n".join(text.strip() for text in texts if text.strip())
