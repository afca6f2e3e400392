"""Single values of a decoded row: what they are called, and texts taken from them or refused with their path."""

from collections.abc import Iterable, Mapping
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault


def kind_of(value: Any) -> str:
    """What a person calls a JSON value of that type, for messages."""
    names = {bytes: "bytes", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "a list")


def text_of(value: Any, path: str) -> str:
    """The text itself; RowFault naming `path` for anything else."""
    if not isinstance(value, str):
        raise RowFault(path, f"expected text, got {kind_of(value)}")
    return value


def texts_of(value: Any, path: str) -> list[str]:
    """A list of texts: of null none, of a text that one alone."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list):
        raise RowFault(path, f"expected a list of texts, got {kind_of(value)}")
    return [text_of(item, f"{path}[{index}]") for index, item in enumerate(value)]


REASONING = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "chain_of_thought")
"""What the assistant thought is called, in a message and beside an answer."""

_SWITCH = {"on", "off", "true", "false", "yes", "no", "none", "low", "medium", "high", "enabled", "disabled", "auto"}


def is_switch(value: Any) -> bool:
    """Whether a value says that there is a reasoning (``on``, true), or how much of one, and is none."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _SWITCH)


def first_of(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of `names` that the row has."""
    return next((name for name in names if name in row), None)


def unrecognised(row: Mapping[str, Any], wanted: str) -> RowFault:
    """The fault of a row whose fields tell nothing: what it has, and what would do."""
    found = ", ".join(str(name)[:_LONG_NAME] for name in list(row)[:12]) or "nothing"
    no_header = any(len(str(name)) > _LONG_NAME or str(name).rstrip().endswith(_SENTENCE_ENDS) for name in row)
    hint = ". The first line seems to be a row: put a header line above it" if no_header else ""
    return RowFault("", f"found {found}; expected {wanted}, or a mapping in the registration{hint}{_inside(row)}")


_USUAL = {
    "messages", "conversations", "instruction", "input", "output", "prompt", "completion", "response", "question",
    "answer", "chosen", "rejected", "text",
}  # fmt: skip


def _inside(row: Mapping[str, Any]) -> str:
    """Which object of a row holds what rows usually hold, and how a mapping reaches into it."""
    for name, value in row.items():
        if isinstance(value, dict) and (there := [key for key in value if key in _USUAL]):
            mapped = " ".join(f"--map {key}={name}.{key}" for key in there[:4])
            return f". {name} holds {', '.join(there[:4])}: {mapped}"
    return ""


_LONG_NAME = 80
_SENTENCE_ENDS = ("?", ".", "!", "。", "？", "！")
"""What a column's name is not longer than, and does not end in."""


_MEDIA = (
    "image", "images", "image_url", "image_path", "image_file", "audio", "audios", "audio_path", "video", "videos",
    "video_path", "pixel_values",
)  # fmt: skip


def refuse_media(item: Mapping[str, Any], path: str = "") -> None:
    """RowFault where pictures, sound or films belong to a row or a message: a model would learn to answer unseen."""
    for name in _MEDIA:
        value = item.get(name)
        if value is not None and value != "" and value != []:
            where = f"{path}.{name}" if path else name
            raise RowFault(where, f"the row has {name}: models are trained on text alone, leave the row out")
