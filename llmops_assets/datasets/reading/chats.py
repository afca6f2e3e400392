"""Rows of conversations: lists of messages, Alpaca's instruction and output, pairs of question and answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmops_assets.datasets.reading import weights
from llmops_assets.datasets.reading.message import Message
from llmops_assets.datasets.reading.messages import list_of, message_of, messages_of
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.tool_schemas import tools_text
from llmops_assets.datasets.reading.transcripts import is_open_transcript, transcript
from llmops_assets.datasets.reading.translations import turns_before
from llmops_assets.datasets.reading.values import (
    REASONING,
    first_of,
    is_switch,
    kind_of,
    refuse_media,
    text_of,
    unrecognised,
)

PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("q", "a"),
    ("query", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("prompt", "output"),
    ("question", "output"),
    ("question", "completion"),
    ("query", "output"),
    ("query", "completion"),
    ("input", "response"),
    ("input", "answer"),
    ("input", "completion"),
    ("inputs", "targets"),
    ("input_text", "output_text"),
    ("problem", "solution"),
    ("problem", "answer"),
    ("질문", "답변"),
    ("질문", "대답"),
)
WHOLE = ("messages", "conversations")
OTHER_TURNS = ("conversation", "dialogue", "dialog", "turns", "data", "contents")
"""Fields that hold a whole conversation; the second ones where no answer stands beside them."""
_ANSWERS = ("output", "response", "completion", "answer")
SYSTEM_KEYS = ("system", "system_prompt", "system_message", "systemPrompt", "sys_prompt", "시스템")
"""What holds the system prompt beside a conversation or a question (OpenOrca calls it `system_prompt`)."""
_BESIDE = ("input", "context")
"""What an instruction or a question is asked about."""
_PASSAGES = ("passage", "article", "paragraph", "지문")
"""The same by names that other columns may have, too: of them only what reads like a passage is asked about."""
_TURN_PAIRS = (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("question", "answer"))
_OF_TEMPLATES = ("custom_instructions", "system", "tools", "xml_tools", "python_tools", "documents")
"""What a template may be told beside the messages, and that the model then sees."""


def chat(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of a conversation, and the fields that were used for it; RowFault when it is none."""
    refuse_unheeded(row)
    tools, used = tools_of(row)
    name = next((name for name in WHOLE if row.get(name)), None)
    name = name or next((name for name in WHOLE if row.get(name) is not None), None)
    if name is not None:
        return _conversation(row, name, tools, used)
    answered = first_of(row, _ANSWERS)
    if "instruction" in row and answered is not None:
        turns, asking = alpaca_prompt(row)
        messages = [*turns, *_answer(row, answered)]
        return {"messages": messages, "tools": tools}, {answered, *asking, *used, *_thought(row, answered)}
    for asked, answered in PAIRS:
        if asked in row and answered in row:
            prompt, used = row[asked], used | {asked, answered, *SYSTEM_KEYS, *_thought(row, answered)}
            if isinstance(prompt, list):
                turns = messages_of(prompt, asked)
            else:
                turns, about = _asked(row, text_of(prompt, asked), asked)
                used = used | about
            return {"messages": [*with_system(turns, row), *_answer(row, answered)], "tools": tools}, used
    name = next((name for name in OTHER_TURNS if row.get(name) and _is_listed(row[name])), None)
    if name is not None:
        return _conversation(row, name, tools, used)
    raise unrecognised(row, "messages, conversations, instruction/output, prompt/completion or question/answer")


def _conversation(row: dict[str, Any], name: str, tools: str | None, used: set[str]) -> tuple[dict[str, Any], set[str]]:
    turns = with_system(_turns(row[name], name), row)
    used = {name, *SYSTEM_KEYS, *used, *_repeated_prompt(row, turns)}
    answered = first_of(row, _ANSWERS)
    if turns and turns[-1].role in ("user", "tool") and answered is not None and isinstance(row[answered], str):
        # The answer stands beside the turns that it is given to.
        turns, used = [*turns, *_answer(row, answered)], {*used, answered, *_thought(row, answered)}
    return {"messages": turns, "tools": tools}, used


def _is_listed(value: Any) -> bool:
    """Whether a value is a list, or one that stands in a text as JSON."""
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip()[:2] == "[{")


def is_chat(names: set[str]) -> bool:
    """Whether rows with these fields are conversations, or an instruction with its answer (pairs aside)."""
    if names & {*WHOLE, "segments", "conversation", "dialogue", "dialog"}:
        return True
    # UltraChat's rows have little else; elsewhere `data` and `turns` may be anything.
    beside = {"data", "turns", "id", "prompt", "prompt_id", "system", "tools"}
    bare = bool(names & {"data", "turns"}) and names <= beside
    return bare or ("instruction" in names and not names.isdisjoint(_ANSWERS))


def refuse_unheeded(row: Mapping[str, Any]) -> None:
    """RowFault for what a row says of itself that would change what is learned, and that no chat has a place for."""
    refuse_media(row)
    given = row.get("chat_template_kwargs")
    for name, value in given.items() if isinstance(given, dict) else ():
        if name in _OF_TEMPLATES and value not in (None, "", []):
            raise RowFault(
                f"chat_template_kwargs.{name}",
                "what a chat template is given beside the messages is not rendered: write instructions as the system "
                "message, and tools as tools",
            )
    weights.refuse_row_weight(row)
    weights.refuse_row_loss(row)
    if row.get("segments"):
        raise RowFault(
            "segments",
            "Axolotl's input_output segments are text without roles, which no chat template renders: "
            "write messages, with train: false for what is not learned",
        )


def tools_of(row: Mapping[str, Any]) -> tuple[str | None, set[str]]:
    """The tools beside a conversation as canonical JSON, and the fields that they are in."""
    found = [key for key in ("tools", "functions") if row.get(key) not in (None, "", [])]
    if len(found) == 2:
        raise RowFault("functions", "tools and functions stand in one row: keep one")
    return (tools_text(row[found[0]], found[0]) if found else None), {k for k in ("tools", "functions") if k in row}


def with_system(turns: list[Message], row: Mapping[str, Any]) -> list[Message]:
    """The turns behind the system prompt that stands beside them; RowFault where it differs from their own."""
    given = [name for name in SYSTEM_KEYS if row.get(name) not in (None, "")]
    if not given:
        return turns
    text = text_of(row[given[0]], given[0])
    if others := [name for name in given if row[name] != text]:
        raise RowFault(others[0], f"{given[0]} and {others[0]} hold different system prompts: keep one")
    if turns and turns[0].role == "system":
        if turns[0].content != text:
            raise RowFault(given[0], f"it differs from the system message in {turns[0].path or 'the row'}: keep one")
        return turns
    return [Message("system", text), *turns]


def alpaca_prompt(row: dict[str, Any]) -> tuple[list[Message], set[str]]:
    """The turns that an Alpaca row asks with (system prompt, history, instruction with input), and their fields."""
    turns: list[Message] = []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowFault("history", f"expected a list of pairs, got {kind_of(history)}")
    turns += messages_of(turns_before(history, "history"), "history")
    asked, about = _asked(row, text_of(row["instruction"], "instruction"), "instruction")
    turns += asked
    return with_system(turns, row), {"instruction", *SYSTEM_KEYS, "history", *about}


def _asked(row: Mapping[str, Any], text: str, name: str) -> tuple[list[Message], set[str]]:
    """The turns that a text asks with, and the fields of what it is asked about."""
    whole, about = _about(row, text, name)
    if is_open_transcript(whole) and (turns := transcript(whole)):
        return [Message(role, said, path=name) for role, said in turns], about
    return [Message("user", whole)], about


def _about(row: Mapping[str, Any], asked: str, name: str) -> tuple[str, set[str]]:
    """What is asked with the text that it is asked about, and the field of that."""
    about = {key: row[key] for key in _BESIDE if key != name and row.get(key) not in (None, "")}
    if name != "input" and _is_no_input(row, "input"):
        del about["input"]
    about = {key: text_of(text, key) for key, text in about.items() if key == "input" or isinstance(text, str)}
    if (said := about.get("input", "").strip().lower()) in MISSING_INPUT:
        raise RowFault("input", f"{said!r} is what a tool writes where there is no input: write an empty text")
    about |= {key: row[key] for key in _PASSAGES if key not in about and _reads_like_a_passage(row.get(key))}
    whole = asked
    for key, text in about.items():
        # A passage that the question quotes is there already; an instruction that names its input still has it.
        if key == "input" or text not in whole:
            whole = f"{whole}\n\n{text}" if whole.strip() else text
    return whole, {*about, *(key for key in _BESIDE if row.get(key, 0) in (None, "") or _is_no_input(row, key))}


NO_INPUT = ("<noinput>", "noinput", "no input", "no input.")
"""What models that wrote instructions say where one has no input: nothing is asked about."""
MISSING_INPUT = ("nan", "none", "null", "<na>")
"""What a table leaves there, which may be a column of its own that was lost."""

_PASSAGE = 30
"""Characters that no name of a file, title or number is beyond that is called a passage."""


def _is_no_input(row: Mapping[str, Any], key: str) -> bool:
    return key == "input" and isinstance(said := row.get(key), str) and said.strip().lower() in NO_INPUT


def _reads_like_a_passage(value: Any) -> bool:
    return isinstance(value, str) and len(value) > _PASSAGE and len(value.split()) > 4


def _answer(row: Mapping[str, Any], name: str) -> list[Message]:
    value = row[name]
    if isinstance(value, list):
        return messages_of(value, name)
    if isinstance(value, dict):
        return [message_of(value, name)]
    thoughts = {key: text_of(row[key], key) for key in REASONING if row.get(key) and not is_switch(row[key])}
    if len(set(thoughts.values())) > 1:
        raise RowFault(list(thoughts)[-1], f"{' and '.join(thoughts)} hold different reasonings: keep one")
    thought = next(iter(thoughts.values()), None)
    text = text_of(value, name)
    return [Message("assistant", text, reasoning_content=thought)]


def _thought(row: Mapping[str, Any], answered: str) -> set[str]:
    thoughts = {key for key in REASONING if row.get(key) and not is_switch(row[key])}
    return thoughts if isinstance(row[answered], str) else set()


def _repeated_prompt(row: Mapping[str, Any], turns: Sequence[Message]) -> set[str]:
    """The field that repeats the first question, as UltraChat has it beside the messages."""
    prompt = row.get("prompt")
    asked = next((turn.content for turn in turns if turn.role == "user"), None)
    return {"prompt"} if prompt is not None and prompt == asked else set()


def _turns(value: list[Any], name: str) -> list[Message]:
    """A conversation as a list of messages, of texts in turn (UltraChat), or of pairs (XTuner, Firefly)."""
    value = list_of(value, name)
    if value and all(isinstance(item, str) for item in value):
        return [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(value)]
    if value and all(isinstance(item, dict) for item in value):
        for asked, answered in _TURN_PAIRS:
            if all(item.keys() <= {asked, answered, "system"} and answered in item for item in value):
                return _from_pairs(value, name, asked, answered)
    return messages_of(value, name)


def _from_pairs(value: list[dict[str, Any]], name: str, asked: str, answered: str) -> list[Message]:
    turns: list[Message] = []
    for index, pair in enumerate(value):
        if pair.get("system"):
            if index:
                raise RowFault(f"{name}[{index}].system", "a system prompt behind the first turn: split the row")
            turns.append(Message("system", text_of(pair["system"], f"{name}[0].system")))
        turns.append(Message("user", text_of(pair.get(asked), f"{name}[{index}].{asked}")))
        turns.append(Message("assistant", text_of(pair[answered], f"{name}[{index}].{answered}")))
    return turns
