"""Recognises the shapes of rows that users bring (messages, sharegpt, alpaca, pairs, preferences, text),types them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault

Message = tuple[str, str]
ROLE_NAMES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def kind_of(value: Any) -> str:
    """What a person calls a JSON value of that type, for messages."""
    names = {str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
    return names.get(type(value), "an object" if isinstance(value, dict) else "a list")


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise RowFault(path, f"expected text, got {kind_of(value)}")
    return value


def _messages(value: Any, path: str) -> list[Message]:
    """Messages in either spelling: role and content, or from and value."""
    if not isinstance(value, list):
        raise RowFault(path, f"expected a list of messages, got {kind_of(value)}")
    return [_message(item, f"{path}[{index}]") for index, item in enumerate(value)]


def _message(item: Any, path: str) -> Message:
    if not isinstance(item, dict):
        raise RowFault(path, f"expected a message, got {kind_of(item)}")
    if "role" in item:
        role = _text(item["role"], f"{path}.role")
        text = _text(item.get("content"), f"{path}.content")
    elif "from" in item:
        role = _text(item["from"], f"{path}.from")
        text = _text(item.get("value"), f"{path}.value")
    else:
        raise RowFault(path, "a message needs role and content (or from and value)")
    return ROLE_NAMES.get(role, role), text


def _texts(value: Any, path: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list):
        raise RowFault(path, f"expected a list of texts, got {kind_of(value)}")
    return [_text(item, f"{path}[{index}]") for index, item in enumerate(value)]


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in row), None)


_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("q", "a"),
    ("query", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("질문", "답변"),
    ("질문", "대답"),
)


def _chat(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    if "messages" in row:
        return {"messages": _messages(row["messages"], "messages")}, {"messages"}
    if "conversations" in row:
        turns = _messages(row["conversations"], "conversations")
        if row.get("system"):
            turns = [("system", _text(row["system"], "system")), *turns]
        return {"messages": turns}, {"conversations", "system"}
    if "instruction" in row and "output" in row:
        turns = _alpaca_prompt(row)
        turns.append(("assistant", _text(row["output"], "output")))
        return {"messages": turns}, {"instruction", "input", "output", "system", "history"}
    for asked, answered in _PAIRS:
        if asked in row and answered in row:
            prompt, answer = row[asked], row[answered]
            turns = _messages(prompt, asked) if isinstance(prompt, list) else [("user", _text(prompt, asked))]
            if row.get("system"):
                turns = [("system", _text(row["system"], "system")), *turns]
            if isinstance(answer, list):
                turns = [*turns, *_messages(answer, answered)]
            else:
                turns = [*turns, ("assistant", _text(answer, answered))]
            return {"messages": turns}, {asked, answered, "system"}
    raise _unrecognised(row, "messages, conversations, instruction/output, prompt/completion or question/answer")


def _alpaca_prompt(row: dict[str, Any]) -> list[Message]:
    turns: list[Message] = []
    if row.get("system"):
        turns.append(("system", _text(row["system"], "system")))
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowFault("history", f"expected a list of pairs, got {kind_of(history)}")
    for index, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowFault(f"history[{index}]", "expected a pair of question and answer")
        turns.append(("user", _text(pair[0], f"history[{index}][0]")))
        turns.append(("assistant", _text(pair[1], f"history[{index}][1]")))
    asked = _text(row["instruction"], "instruction")
    if row.get("input"):
        asked = f"{asked}\n\n{_text(row['input'], 'input')}"
    turns.append(("user", asked))
    return turns


def _corpus(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    name = _first(row, ("text", "content", "document", "본문"))
    if name is None:
        raise _unrecognised(row, "text")
    return {"text": _text(row[name], name)}, {name}


def _answer(value: Any, path: str) -> list[Message]:
    if isinstance(value, str):
        return [("assistant", value)]
    if isinstance(value, dict):
        return [_message(value, path)]
    return _messages(value, path)


def _preference(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    if "chosen" not in row or "rejected" not in row:
        raise _unrecognised(row, "chosen and rejected, with a prompt or as whole conversations")
    chosen, rejected = _answer(row["chosen"], "chosen"), _answer(row["rejected"], "rejected")
    used = {"chosen", "rejected"}
    name = _first(row, ("prompt", "conversations", "messages", "question", "query", "instruction"))
    if name is None:
        # Whole conversations: the prompt is what both begin with.
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if shared == 0:
            raise RowFault("chosen", "chosen and rejected share no beginning that could be the prompt")
        return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}, used
    if name == "instruction":
        return {"prompt": _alpaca_prompt(row), "chosen": chosen, "rejected": rejected}, used | {
            "instruction",
            "input",
            "system",
            "history",
        }
    value = row[name]
    prompt = _messages(value, name) if isinstance(value, list) else [("user", _text(value, name))]
    if row.get("system"):
        prompt = [("system", _text(row["system"], "system")), *prompt]
    # TRL's conversational shape repeats the prompt in both answers.
    if len(chosen) > len(prompt) and chosen[: len(prompt)] == prompt:
        chosen = chosen[len(prompt) :]
    if len(rejected) > len(prompt) and rejected[: len(prompt)] == prompt:
        rejected = rejected[len(prompt) :]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}, used | {name, "system"}


def _rag(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    asked = _first(row, ("question", "query", "q", "질문"))
    answered = _first(row, ("answer", "a", "response", "답변"))
    if asked is None or answered is None:
        raise _unrecognised(row, "question and answer, with positives and negatives")
    positive = _first(row, ("positives", "positive", "contexts", "context", "passages", "passage", "pos"))
    negative = _first(row, ("negatives", "negative", "neg"))
    content = {
        "question": _text(row[asked], asked),
        "answer": _text(row[answered], answered),
        "positives": _texts(row[positive], positive) if positive else [],
        "negatives": _texts(row[negative], negative) if negative else [],
    }
    return content, {name for name in (asked, answered, positive, negative) if name}


def _embedding(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    anchor = _first(row, ("anchor", "query", "sentence1", "question", "premise"))
    positive = _first(row, ("positives", "positive", "pos", "sentence2", "answer", "hypothesis"))
    negative = _first(row, ("negatives", "negative", "neg"))
    if anchor is None or positive is None:
        raise _unrecognised(row, "anchor and positive")
    content = {
        "anchor": _text(row[anchor], anchor),
        "positives": _texts(row[positive], positive),
        "negatives": _texts(row[negative], negative) if negative else [],
    }
    return content, {name for name in (anchor, positive, negative) if name}


def _unrecognised(row: Mapping[str, Any], wanted: str) -> RowFault:
    found = ", ".join(map(str, list(row)[:12])) or "nothing"
    return RowFault("", f"found {found}; expected {wanted}, or a mapping in the registration")


_READERS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], set[str]]]] = {
    "sft_pair": _chat,
    "eval_suite": _chat,
    "pretrain_corpus": _corpus,
    "rlhf_pair": _preference,
    "rag_qa": _rag,
    "embedding_pair": _embedding,
}


def _mapped(row: dict[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """The row with the registration's names put in place; ``a.b`` reaches into an object."""
    renamed: dict[str, Any] = {}
    taken: set[str] = set()
    for canonical, column in mapping.items():
        value: Any = row
        parts = [column] if column in row else column.split(".")
        for part in parts:
            if not isinstance(value, dict) or part not in value:
                raise RowFault(column, f"the mapping takes {canonical} from {column!r}, which the row does not have")
            value = value[part]
        renamed[canonical] = value
        taken.add(parts[0])
    return {**{name: value for name, value in row.items() if name not in taken}, **renamed}


def convert(value: Any, dataset_type: str, mapping: Mapping[str, str] | None = None) -> tuple[dict, dict]:
    """One decoded row as its type's content and the metadata that is left; RowFault when it cannot be."""
    if not isinstance(value, dict):
        raise RowFault("", f"expected an object, got {kind_of(value)}")
    row = _mapped(value, mapping) if mapping else value
    reader = _READERS[dataset_type]
    try:
        content, used = reader(row)
    except RowFault as fault:
        lowered = {str(name).strip().lower(): item for name, item in row.items()}
        if fault.field or set(lowered) == set(row) or len(lowered) < len(row):
            raise
        row = lowered
        content, used = reader(row)
    metadata = row.get("metadata")
    rest = {name: item for name, item in row.items() if name not in used and name != "metadata"}
    if metadata is not None:
        if not isinstance(metadata, dict):
            raise RowFault("metadata", f"expected an object, got {kind_of(metadata)}")
        rest = {**rest, **metadata}
    return content, rest
