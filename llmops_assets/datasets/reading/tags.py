"""Names that a mapping gives to what is inside of messages: their keys, and who speaks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmops_assets.datasets.reading.fault import RowFault

_KEYS = {"message.role": "role", "message.content": "content"}
_ROLE = "role."
_TURNS = ("messages", "conversations", "prompt", "completion", "chosen", "rejected")


@dataclass(frozen=True)
class Tags:
    """`keys`: the key in the file by that of a message (role, content); `roles`: the role by the name in the file."""

    keys: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.keys or self.roles)


def tags_of_mapping(mapping: Mapping[str, str]) -> tuple[dict[str, str], Tags]:
    """A mapping's columns by field, and its names inside of messages: ``message.role=speaker``,
    ``message.content=utterance``, ``role.손님=user``."""
    columns, keys, roles = {}, {}, {}
    for name, value in mapping.items():
        if name in _KEYS:
            keys[_KEYS[name]] = value
        elif name.startswith(_ROLE):
            roles[name.removeprefix(_ROLE)] = value
        else:
            columns[name] = value
    return columns, Tags(keys, roles)


def retagged(row: dict[str, Any], tags: Tags) -> dict[str, Any]:
    """The row with the keys and roles of its messages by their usual names; RowFault for a message without the keys."""
    found = dict(row)
    for name in _TURNS:
        if isinstance(row.get(name), list):
            found[name] = [_message(item, f"{name}[{index}]", tags) for index, item in enumerate(row[name])]
        elif isinstance(row.get(name), dict):
            found[name] = _message(row[name], name, tags)
    return found


def _message(item: Any, path: str, tags: Tags) -> Any:
    if not isinstance(item, dict):
        return item
    for key in tags.keys.values():
        if key not in item:
            there = ", ".join(map(str, list(item)[:8])) or "nothing"
            raise RowFault(f"{path}.{key}", f"the mapping names this key of a message, which has {there}")
    renamed = {tags.keys[key]: key for key in tags.keys}
    message = {renamed.get(key, key): value for key, value in item.items()}
    key = next((key for key in ("role", "from") if key in message), None)
    if key is not None and isinstance(message[key], str):
        message[key] = tags.roles.get(message[key], message[key])
    return message
