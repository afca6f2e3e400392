"""Files with one message of a conversation a row, put together: by the message that each answers, or in their order."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from llmops_assets.datasets.reading.accounting import Account
from llmops_assets.datasets.reading.messages import ROLE_NAMES
from llmops_assets.datasets.reading.raw import Raw, RowFault
from llmops_assets.datasets.reading.trees import TEXTS

_IDS = ("conversation_id", "chat_id", "dialogue_id", "dialog_id", "session_id", "thread_id")
_ROLES = ("role", "speaker", "sender", "author", "from")
_SAID = ("content", "text", "message", "utterance", "value")
_ORDERS = (
    "turn", "turn_id", "turn_index", "turn_number", "turn_no", "message_index", "message_order", "seq",
    "sequence", "order", "position", "index", "idx", "created_at", "timestamp", "created", "time",
)  # fmt: skip
_WHOLE = (
    "messages",
    "conversations",
    "conversation",
    "replies",
    "prompt",
    "chosen",
    "completion",
    "answer",
    "response",
)
"""Fields of a row that is more than one message."""


def joined(raws: Iterator[Raw], account: Account) -> Iterator[Raw]:
    """The rows of a file; where each is one message of a conversation, one row for a conversation or a tree of them.

    A conversation that a turn is missing from is refused: it would teach an answer to what nobody asked. Rows that
    became part of another are counted in the account.
    """
    before: list[Raw] = []
    for raw in raws:
        before.append(raw)
        if raw.fault is None:
            break
    first = before[-1].value if before and before[-1].fault is None else None
    every = chain(before, raws)
    if in_tree(first):
        yield from _trees(every, account)
    elif in_conversation(first) is not None:
        yield from _conversations(every, account)
    else:
        yield from every


def in_tree(value: Any) -> bool:
    """Whether a row is a message that says which message it answers (OpenAssistant's)."""
    if not isinstance(value, dict) or not {"message_id", "parent_id", "role"} <= value.keys():
        return False
    return any(isinstance(value.get(name), str) for name in TEXTS) and "replies" not in value


def in_conversation(value: Any) -> tuple[str, str, str] | None:
    """The fields of a row that is one message of a conversation: whose it is, who says it, what; None for others.

    Only where a role is said: of an author's name nobody knows whether it asks or answers.
    """
    if not isinstance(value, dict):
        return None
    names = {str(name).strip().lower(): name for name in value}
    if not names.keys().isdisjoint(_WHOLE):
        return None
    found = [next((names[name] for name in some if name in names), None) for some in (_IDS, _ROLES, _SAID)]
    if None in found or not isinstance(value[found[1]], str) or value[found[1]].strip().lower() not in ROLE_NAMES:
        return None
    return found[0], found[1], found[2]


def _trees(raws: Iterator[Raw], account: Account) -> Iterator[Raw]:
    nodes: dict[str, dict[str, Any]] = {}
    lines: dict[str, int] = {}
    for raw in raws:
        key = _id(raw.value.get("message_id")) if raw.fault is None and isinstance(raw.value, dict) else None
        if raw.fault is not None:
            yield raw
        elif key is None:
            yield Raw(raw.line, raw.value, RowFault("message_id", "a message of a tree without its message_id"))
        elif key in nodes:
            reason = f"the message {key[:40]!r} stands in line {lines[key]} already"
            yield Raw(raw.line, raw.value, RowFault("message_id", reason))
        else:
            nodes[key], lines[key] = {**raw.value, "message_id": key, "replies": []}, raw.line
    roots, below = [], Counter[str]()
    for key, node in nodes.items():
        given = node.get("parent_id")
        parent = _id(given)
        if given is None or given == "":
            roots.append(key)
        elif parent in nodes:
            nodes[parent]["replies"].append(node)
        else:
            reason = f"it answers the message {str(given)[:40]!r}, which the file does not have"
            yield Raw(lines[key], _bare(node), RowFault("parent_id", reason))
            below[key] = _size(node)
    reached = set()
    for key in roots:
        reached |= _ids(nodes[key])
        account.joined += _size(nodes[key]) - 1
        tree = {
            name: nodes[key][name] for name in ("message_tree_id", "tree_state") if nodes[key].get(name) is not None
        }
        yield Raw(lines[key], tree | {"prompt": nodes[key]})
    for key, node in nodes.items():
        if key not in reached and key not in below:
            reason = "no first message leads to it: what it answers, or what that answers, is missing or in a circle"
            yield Raw(lines[key], _bare(node), RowFault("parent_id", reason))


def _id(value: Any) -> str | None:
    """An id as a text; of a table whole numbers may be written with a point. None for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _ids(node: Mapping[str, Any]) -> set[str]:
    found, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        found.add(one["message_id"])
        waiting += one["replies"]
    return found


def _size(node: Mapping[str, Any]) -> int:
    return len(_ids(node))


def _bare(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name != "replies"}


def _conversations(raws: Iterator[Raw], account: Account) -> Iterator[Raw]:
    turns: dict[str, list[Raw]] = {}
    unread: dict[str, int] = {}
    last, broken_at, names = None, 0, None
    for raw in raws:
        if names is None and raw.fault is None:
            names = in_conversation(raw.value)
        if names is None or raw.fault is not None or not _has(raw.value, names):
            # Whose turn it was nobody knows: of the conversations on both sides.
            broken_at = raw.line
            if last is not None:
                unread.setdefault(last, raw.line)
            reason = "no message of a conversation, as the rows before it are"
            yield raw if raw.fault is not None else Raw(raw.line, raw.value, RowFault("", reason))
            continue
        key = _id(raw.value[names[0]]) or ""
        if broken_at:
            unread.setdefault(key, broken_at)
            broken_at = 0
        turns.setdefault(key, []).append(raw)
        last = key
    for key, of_one in turns.items():
        account.joined += len(of_one) - 1
        try:
            if key in unread:
                raise RowFault("", f"a turn beside it could not be read (line {unread[key]}): it may be one of these")
            yield Raw(of_one[0].line, _conversation([raw.value for raw in of_one], names))
        except RowFault as fault:
            yield Raw(of_one[0].line, of_one[0].value, fault)


def _has(value: Any, names: tuple[str, str, str]) -> bool:
    """Whether a row says whose message it is, and who says what; a content may be null, beside calls."""
    if not isinstance(value, dict) or not {*names} <= value.keys():
        return False
    return _id(value[names[0]]) is not None and isinstance(value[names[1]], str)


def _conversation(rows: Sequence[dict[str, Any]], names: tuple[str, str, str]) -> dict[str, Any]:
    """One row of messages; what is the same in all of them stands beside these, all else in each."""
    key, role, content = names
    order = next((name for name in rows[0] if str(name).strip().lower() in _ORDERS), None)
    if order is not None:
        rows = _ordered(rows, order, role)
    apart = {key, role, content, order}
    same = {
        name: value
        for name, value in rows[0].items()
        if name not in apart and all(row.get(name) == value for row in rows) and len(rows) > 1
    }
    messages = [
        {"role": row.get(role), "content": row.get(content)}
        | {
            name: value
            for name, value in row.items()
            if name not in apart and name not in same and value not in (None, "")
        }
        for row in rows
    ]
    return {key: rows[0][key], **same, "messages": messages}


def _ordered(rows: Sequence[dict[str, Any]], name: str, role: str) -> list[dict[str, Any]]:
    """The turns by their numbers, which have no gap, or by their times. One number may be that of a question and of
    its answer."""
    values = [row.get(name) for row in rows]
    if any(value in (None, "") for value in values):
        raise RowFault(str(name), f"a turn of the conversation has no {name}")
    numbers = [_number(value) for value in values]
    if None in numbers:
        return [row for _, row in sorted(zip(map(str, values), rows, strict=True), key=lambda one: one[0])]
    if max(numbers) >= _TIME:
        return [row for _, row in sorted(zip(numbers, rows, strict=True), key=lambda one: one[0])]
    by_number: dict[float, list[dict[str, Any]]] = {}
    for number, row in zip(numbers, rows, strict=True):
        by_number.setdefault(number, []).append(row)
    found: list[dict[str, Any]] = []
    for number in sorted(by_number):
        turns = sorted(by_number[number], key=lambda row: _FIRST.get(ROLE_NAMES.get(row[role].strip().lower(), ""), 2))
        if len({row[role] for row in turns}) < len(turns):
            raise RowFault(str(name), f"two turns of one role have the {name} {number:g}")
        found += turns
    for before, after in pairwise(sorted(by_number)):
        if before.is_integer() and after - before > 1:
            raise RowFault(str(name), f"the {name} {before + 1:g} of the conversation is missing from the file")
    return found


_FIRST = {"system": 0, "user": 1, "assistant": 2, "tool": 3}
_TIME = 1e8
"""From this on a number is a time (seconds since 1970), and none of a turn."""


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
