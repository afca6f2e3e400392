"""Trees of messages (OpenAssistant): the best path through one as a conversation, or its best and worst answer."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.translation import Row, Translated, without
from llmops_assets.datasets.reading.values import kind_of, text_of

TEXTS = ("text", "content")
_ROLES = {"prompter": "user", "user": "user", "assistant": "assistant", "system": "system"}
_REFUSED_STATES = ("aborted_low_grade", "halted_by_moderator")
"""States of trees that their reviewers gave up."""
_NO = ("false", "0", "0.0", "f", "no")
_DEEPEST = 500

Node = Mapping[str, Any]


def is_tree(row: Mapping[str, Any]) -> bool:
    """Whether a row is a tree: one message, with replies that have replies."""
    root = row.get("prompt")
    return isinstance(root, dict) and isinstance(root.get("replies"), list) and any(name in root for name in TEXTS)


def best_path(row: Row) -> Translated | None:
    """The conversation of the best-ranked reply at every message, to the last answer; None for a row that is no tree.

    Deleted messages and those that the reviewers turned down are passed over, with all that follows them. What is left
    out is counted in `replies_left_out`. RowFault for a tree without an answer that may be learned.
    """
    if not is_tree(row):
        return None
    _refuse_state(row)
    left_out = Counter[str]()
    path = _path(row["prompt"], left_out)
    while path and _role(path[-1][0], path[-1][1]) != "assistant":
        _, where = path.pop()
        left_out["without an answer"] += where != "prompt"
    if not path:
        raise RowFault("prompt.replies", _nothing(left_out))
    messages = [_message(node, where) for node, where in path]
    beside = {"replies_left_out": dict(sorted(left_out.items()))} if left_out.total() else {}
    return Translated(without(row, {"prompt"}) | beside | {"messages": messages}, {"prompt"}, {"messages": "prompt"})


def best_and_worst(row: Row) -> Translated | None:
    """The first message on the best path that has several ranked replies, with the best and the worst of them."""
    if not is_tree(row):
        return None
    _refuse_state(row)
    left_out = Counter[str]()
    path = _path(row["prompt"], left_out)
    for length, (node, where) in enumerate(path, start=1):
        ranked = [reply for reply, _ in _replies(node, where, Counter()) if _rank(reply) is not None]
        if _role(node, where) != "assistant" and len(ranked) > 1:
            turns = [_message(one, place) for one, place in path[:length]]
            answers = {"chosen": [_message(ranked[0], where)], "rejected": [_message(ranked[-1], where)]}
            found = without(row, {"prompt"}) | {"prompt": turns} | answers
            paths = dict.fromkeys(("prompt", "chosen", "rejected"), "prompt")
            return Translated(found, {"prompt"}, paths)
    raise RowFault("prompt.replies", "no question of this tree has two answers with a rank: nothing was preferred")


def _refuse_state(row: Row) -> None:
    if row.get("tree_state") in _REFUSED_STATES:
        raise RowFault("tree_state", f"{row['tree_state']}: its reviewers gave this tree up")


def _path(root: Node, left_out: Counter[str]) -> list[tuple[Node, str]]:
    """The messages from the root by the best reply of each, with where they stand; the others are counted."""
    if reason := _turned_down(root):
        left_out[reason] += 1
        return []
    path, node, where = [(root, "prompt")], root, "prompt"
    while replies := _replies(node, where, left_out):
        left_out["of a lower rank"] += len(replies) - 1
        node, where = replies[0]
        path.append((node, where))
        if len(path) > _DEEPEST:
            raise RowFault(where, f"a conversation of more than {_DEEPEST} turns")
    return path


def _replies(node: Node, where: str, left_out: Counter[str]) -> list[tuple[Node, str]]:
    """The replies that may be learned with their places, the best first; those without a rank last, in their order."""
    given = node.get("replies") or []
    if not isinstance(given, list):
        raise RowFault(f"{where}.replies", f"expected a list of messages, got {kind_of(given)}")
    found = []
    for index, reply in enumerate(given):
        place = f"{where}.replies[{index}]"
        if not isinstance(reply, dict):
            raise RowFault(place, f"expected a message, got {kind_of(reply)}")
        if reason := _turned_down(reply):
            left_out[reason] += 1
        else:
            found.append((reply, place))
    return sorted(found, key=lambda one: math.inf if (rank := _rank(one[0])) is None else rank)


def _rank(node: Node) -> float | None:
    value = node.get("rank")
    if value in (None, "") or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RowFault("prompt", f"the rank {value!r} of a message is no number") from None


def _turned_down(node: Node) -> str | None:
    """Why a message is not to be learned."""
    if _truth(node.get("deleted")) is True:
        return "deleted"
    return "turned down by the reviewers" if _truth(node.get("review_result")) is False else None


def _truth(value: Any) -> bool | None:
    """A value that says yes or no, also as the cell of a table has it; None where it says nothing."""
    if value is None or value == "":
        return None
    return value.strip().lower() not in _NO if isinstance(value, str) else bool(value)


def _role(node: Node, where: str) -> str:
    role = text_of(node.get("role"), f"{where}.role")
    return _ROLES.get(role.strip().lower(), role)


_STRUCTURE = ("replies", "role", *TEXTS)


def _message(node: Node, where: str) -> Row:
    name = next((name for name in TEXTS if node.get(name) is not None), TEXTS[0])
    rest = {key: value for key, value in node.items() if key not in _STRUCTURE and value is not None}
    # What decided the way is no metadata, and no mark of a turn that is to be left out.
    for key in ("rank", "deleted", "review_result"):
        rest.pop(key, None)
    return {"role": _role(node, where), "content": text_of(node.get(name), f"{where}.{name}"), **rest}


def _nothing(left_out: Counter[str]) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    return f"no answer of this tree may be learned ({why or 'it has no replies'})"
