"""Rows in the shapes of other interfaces and data sets, as rows of messages, or of chosen and rejected answers."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from llmops_assets.datasets.reading.calls import calls_of
from llmops_assets.datasets.reading.glaive import is_transcript, messages_of_transcript, system_and_functions
from llmops_assets.datasets.reading.logged import LOGGED, examples, logged
from llmops_assets.datasets.reading.moss import MARKED_TEXTS, is_marked, is_moss, marked_text, numbered_turns
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.translation import Row, Translated, without
from llmops_assets.datasets.reading.trees import best_and_worst, best_path, is_tree
from llmops_assets.datasets.reading.values import kind_of, text_of


def translated(row: Row, dataset_type: str) -> Translated:
    """The row with what other interfaces call otherwise by its usual names; RowFault for what cannot be told.

    A row of a usual shape is given back as it is. Two answers are looked for where a type compares them.
    """
    whole = Translated(row)
    for keys, translation in (*(_COMPARISONS if dataset_type == "rlhf_pair" else ()), *_TRANSLATIONS):
        if not keys.isdisjoint(whole.row) and (found := translation(whole.row)) is not None:
            paths = {name: whole.place(there) for name, there in found.paths.items()}
            whole = Translated(found.row, whole.used | found.used, whole.paths | paths, found.in_text or whole.in_text)
    return whole


def _system(row: Row) -> Translated | None:
    """A system prompt as a list of blocks (Anthropic, Bedrock) or as Gemini's content."""
    for name in ("system", "systemInstruction", "system_instruction"):
        value = row.get(name)
        if isinstance(value, (list, dict)) or (name != "system" and isinstance(value, str)):
            if value in ([], {}):
                return Translated(without(row, {name}), {name})
            text = _system_text(value, name)
            if name != "system" and row.get("system") not in (None, "", text):
                raise RowFault(name, f"system and {name} hold different system prompts: keep one")
            return Translated(without(row, {name}) | {"system": text}, {name}, {"system": name})
    return None


def _palm(row: Row) -> Translated | None:
    """The context of a chat as Google's PaLM had it: a system prompt, beside messages with an author."""
    turns = row.get("messages")
    if not isinstance(row["context"], str) or not row["context"] or row.get("system") not in (None, ""):
        return None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "author" in turn for turn in turns):
        return None
    return Translated(without(row, {"context"}) | {"system": row["context"]}, {"context"}, {"system": "context"})


def _system_text(value: Any, path: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        if "parts" not in value:
            return text_of(value.get("text", value.get("content")), f"{path}.text")
        value, path = value["parts"], f"{path}.parts"
        parts = [value] if isinstance(value, dict) else value
        return "".join(_block_text(part, f"{path}[{index}]") for index, part in enumerate(parts))
    blocks = [part for part in value if not (isinstance(part, dict) and part.keys() <= {"cachePoint"})]
    return "\n".join(_block_text(part, f"{path}[{index}]") for index, part in enumerate(blocks))


def _block_text(part: Any, path: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or part.get("type", "text") != "text":
        raise RowFault(path, f"expected a block of text, got {kind_of(part)}")
    return text_of(part.get("text"), f"{path}.text")


def _tool_config(row: Row) -> Translated | None:
    """Bedrock's list of tools."""
    value = row["toolConfig"]
    if not isinstance(value, dict) or "tools" not in value or row.get("tools"):
        return None
    found = without(row, {"toolConfig", "tools"}) | {"tools": value["tools"]}
    return Translated(found, {"toolConfig"}, {"tools": "toolConfig.tools"})


def _responses(row: Row) -> Translated | None:
    """The instructions of OpenAI's Responses, whose input and output are lists of items (either may be a text)."""
    if not isinstance(row.get("input"), list) and not isinstance(row.get("output"), list):
        return None
    if row.get("instructions") in (None, "") or row.get("system") not in (None, ""):
        return None
    used = {"instructions"}
    return Translated(without(row, used) | {"system": row["instructions"]}, used, {"system": "instructions"})


def _history(row: Row) -> Translated | None:
    """A question with the turns before it (Cohere's `chat_history`, ms-swift's and Alpaca's `history`) and its answer,
    as messages."""
    name = next((name for name in ("chat_history", "history") if isinstance(row.get(name), list)), None)
    if name is None or row.get("messages") or row.get("conversations") or "chosen" in row:
        return None
    asked = next((key for key in ("message", "query", "question", "prompt") if isinstance(row.get(key), str)), None)
    answered = any(row.get(key) is not None for key in ("response", "answer", "output", "completion"))
    if asked is None or not answered or (asked == "message" and name != "chat_history"):
        return None
    if not row[name]:
        return Translated(without(row, {name, asked}) | {"prompt": row[asked]}, {name, asked}, {"prompt": asked})
    used, paths = {name, asked}, {"prompt": name}
    if row.get("preamble") not in (None, "") and row.get("system") in (None, ""):
        row, used = {**row, "system": row["preamble"]}, {*used, "preamble"}
        paths["system"] = "preamble"
    turns = [*turns_before(row[name], name), {"role": "user", "content": row[asked]}]
    return Translated(without(row, used) | {"prompt": turns}, used, paths)


def turns_before(value: list[Any], path: str) -> list[Any]:
    """A history as messages: pairs of question and answer, or messages already."""
    turns: list[Any] = []
    for index, pair in enumerate(value):
        if isinstance(pair, list) and len(pair) == 2:
            turns.append({"role": "user", "content": text_of(pair[0], f"{path}[{index}][0]")})
            turns.append({"role": "assistant", "content": text_of(pair[1], f"{path}[{index}][1]")})
        elif isinstance(pair, dict):
            turns.append(pair)
        else:
            raise RowFault(f"{path}[{index}]", "expected a pair of question and answer, or a message")
    return turns


_TRANSCRIPTS = ("chat", "sample")


def _glaive(row: Row) -> Translated | None:
    """A conversation in one text, its functions in the system prompt."""
    name = next((name for name in _TRANSCRIPTS if isinstance(row.get(name), str)), None)
    if name is None or row.get("messages") or row.get("conversations"):
        return None
    messages, used, tools = messages_of_transcript(row[name], name), {name}, []
    prompts = [("system", row["system"])] if isinstance(row.get("system"), str) else []
    if messages[0]["role"] == "system":
        prompts.append((name, messages.pop(0)["content"]))
    for at, (path, text) in enumerate(prompts):
        text, functions = system_and_functions(text, path)
        tools += functions
        if text:
            messages.insert(at, {"role": "system", "content": text})
    if tools and row.get("tools"):
        raise RowFault("tools", "tools stand in the system prompt and beside it: keep one")
    used |= {"system"} if prompts and prompts[0][0] == "system" else set()
    row = without(row, used) | ({"tools": tools} if tools else {})
    return Translated(row | {"messages": messages}, used, {"messages": name, "tools": "system"}, in_text=True)


_ASKED = ("query", "question", "instruction", "prompt", "user", "input")
_WHOLE = {"messages", "conversations", "chosen", "rejected"}
_CALLS = ("answers", "answer", "function_calls", "calls", "output", "response", "completion")


def _function_calls(row: Row) -> Translated | None:
    """A question and the calls that answer it, as xLAM and APIGen have them beside the tools."""
    tools = next((name for name in ("tools", "functions") if row.get(name)), None)
    asked = next((name for name in _ASKED if isinstance(row.get(name), str)), None)
    given = next((name for name in _CALLS if row.get(name) is not None), None)
    if tools is None or asked is None or given is None or _WHOLE & row.keys():
        return None
    if row.get("input") and asked != "input":
        return None
    value = row[given]
    calls = _listed(value)
    if calls is None:
        return None
    if not calls:
        raise RowFault(given, "no function is called, and no answer is given: write what the model should say instead")
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    if given not in _CALLS_ALONE and not {call["name"] for call in calls} <= _names_of(row[tools]):
        # An answer in JSON that calls none of the functions.
        return None
    made = [{"role": "assistant", "content": "", "tool_calls": calls_of(calls, given)}]
    used = {asked, given}
    found = without(row, used) | {"prompt": row[asked], "completion": made}
    return Translated(found, used, {"prompt": asked, "completion": given})


_CALLS_ALONE = ("answers", "function_calls", "calls")
"""Fields that hold nothing else than calls where tools stand beside them."""


def _names_of(tools: Any) -> set[str]:
    """Names of the functions in a list of tools."""
    found = [item.get("function", item) for item in _listed(tools) or () if isinstance(item, dict)]
    return {str(item["name"]) for item in found if isinstance(item, dict) and "name" in item}


def _listed(value: Any) -> list[Any] | None:
    """A list of calls, or one in a text; None for anything else (an answer in words)."""
    if isinstance(value, str):
        if value.strip()[:1] not in ("[", "{"):
            return None
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return [value] if isinstance(value, dict) else value if isinstance(value, list) else None


def _rejected(row: Row) -> Translated | None:
    """A conversation with an answer that is worse than its last one, as ms-swift has it."""
    name = next((name for name in _REJECTED if row.get(name) not in (None, "", [])), None)
    messages = row.get("messages") or row.get("conversations")
    if name is None or not isinstance(messages, list) or not messages or "chosen" in row:
        return None
    source = "messages" if row.get("messages") else "conversations"
    last = max((at for at, turn in enumerate(messages) if _speaks(turn) == "user"), default=-1) + 1
    if not last or last == len(messages):
        return None
    rejected = row[name]
    if name == "rejected_messages" and isinstance(rejected, list) and rejected[:last] == messages[:last]:
        rejected = rejected[last:]
    rest = without(row, {name, source})
    found = {**rest, "prompt": messages[:last], "chosen": messages[last:], "rejected": rejected}
    return Translated(found, {name, source}, {"prompt": source, "chosen": source, "rejected": name})


_REJECTED = ("rejected_response", "rejected_messages")


def _speaks(turn: Any) -> str:
    if not isinstance(turn, dict):
        return ""
    role = str(turn.get("role", turn.get("from", ""))).lower()
    return "user" if role in ("user", "human", "tool", "function", "observation") else role


def _scored_completions(row: Row) -> Translated | None:
    """Gemini's preference tuning: contents with two completions, each with a score."""
    given = row["completions"]
    if not isinstance(row.get("contents"), list) or not isinstance(given, list) or len(given) != 2:
        return None
    if not all(isinstance(one, dict) and isinstance(one.get("completion"), dict) for one in given):
        return None
    scores = [one.get("score") for one in given]
    if any(isinstance(score, bool) or not isinstance(score, (int, float)) for score in scores):
        raise RowFault("completions", "two answers, and not both have a score: nothing says which was preferred")
    if scores[0] == scores[1]:
        raise RowFault("completions", f"both answers have the score {scores[0]:g}: none was preferred")
    best, worst = sorted(given, key=lambda one: -one["score"])
    answers = {"chosen": [best["completion"]], "rejected": [worst["completion"]]}
    used = {"contents", "completions"}
    return Translated(without(row, used) | {"prompt": row["contents"], **answers}, used, {"prompt": "contents"})


def _contents(row: Row) -> Translated | None:
    """An answer in an object of its own (AI-Hub's `contents`, TriviaQA's `value`)."""
    name = next((name for name in ("answer", "response", "output") if isinstance(row.get(name), dict)), None)
    if name is None or {"role", "from", "choices"} & row[name].keys():
        return None
    key = next((key for key in ("contents", "text", "value") if isinstance(row[name].get(key), str)), None)
    if key is None:
        return None
    beside = {f"{name}.{other}": item for other, item in row[name].items() if other != key}
    return Translated(row | beside | {name: row[name][key]}, {name})


def _talk(row: Row) -> Translated | None:
    """AI-Hub's 감성 대화: what a person (HS) and the system (SS) say in turn, by numbered keys."""
    talk = row["talk"]
    content = talk.get("content") if isinstance(talk, dict) else None
    if not isinstance(content, dict) or not all(key[:2] in ("HS", "SS") and key[2:].isdigit() for key in content):
        return None
    turns = []
    for key in sorted(content, key=lambda key: (int(key[2:]), key[:2])):
        if text := text_of(content[key], f"talk.content.{key}").strip():
            turns.append({"role": "user" if key.startswith("HS") else "assistant", "content": text})
    beside = {f"talk.{name}": item for name, item in talk.items() if name != "content"}
    return Translated(
        without(row, {"talk"}) | beside | {"messages": turns}, {"talk"}, {"messages": "talk.content"}, True
    )


_Known = tuple[tuple[set[str], Callable[[Row], Translated | None]], ...]
"""Translations, each with the keys of which a row has one at least."""

_COMPARISONS: _Known = (
    ({"prompt"}, best_and_worst),
    ({"completions"}, _scored_completions),
    ({*_REJECTED}, _rejected),
)
_TRANSLATIONS: _Known = (
    ({"system", "systemInstruction", "system_instruction"}, _system),
    ({"context"}, _palm),
    ({"toolConfig"}, _tool_config),
    ({"talk"}, _talk),
    ({"prompt"}, best_path),
    ({"chat"}, numbered_turns),
    ({*MARKED_TEXTS}, marked_text),
    ({*_TRANSCRIPTS}, _glaive),
    ({asked for asked, _ in LOGGED}, logged),
    ({"inputs", "input"}, examples),
    ({"instructions"}, _responses),
    ({"answer", "response", "output"}, _contents),
    ({"chat_history", "history"}, _history),
    ({"tools", "functions"}, _function_calls),
)


def type_of_other_shape(row: Mapping[str, Any]) -> str | None:
    """The dataset type of a row that only its values tell to be one of these shapes."""
    if isinstance(row.get("contents"), list) and all(isinstance(one, dict) for one in row["contents"]):
        return "rlhf_pair" if isinstance(row.get("completions"), list) else "sft_pair"
    if (row.get("messages") or row.get("conversations")) and any(row.get(name) for name in _REJECTED):
        return "rlhf_pair"
    if any(is_transcript(row.get(name)) for name in _TRANSCRIPTS):
        return "sft_pair"
    if is_tree(row) or is_moss(row) or (any(is_marked(row.get(name)) for name in MARKED_TEXTS) and "output" not in row):
        return "sft_pair"
    try:
        if isinstance(row.get("talk"), dict) and _talk(dict(row)) is not None:
            return "sft_pair"
        if logged(dict(row)) is not None or examples(dict(row)) is not None:
            return "sft_pair"
    except RowFault:
        return "sft_pair"
    names = set(row)
    if {"chat_history", "message"} <= names:
        return "sft_pair"
    calls = bool({"tools", "functions"} & names) and bool({"answers", "function_calls", "calls"} & names)
    return "sft_pair" if calls and not names.isdisjoint(_ASKED) else None
