"""What a chat template does to conversations that nobody meant: messages that it drops, headers that carry loss.

Rows are told apart by shape (roles, and which fields a message has), and one row of each shape is rendered with marks
for its texts: what a template writes depends on those, hardly ever on the words.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError as JinjaError

from images.chat_rendering import text_of
from images.control_tokens import BREAK
from images.train.answer_findings import THINK, before_answer, ends, of_answer
from images.train.chat import (
    Message,
    Template,
    TemplateError,
    Tools,
    blank_tokens,
    encode,
    marked_markdown,
    prompt_ids,
    without_prompt,
)
from llmops_assets.records.conversation import carries_loss, for_template
from llmops_assets.records.training import TemplateFinding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHAPES = 256
"""Kinds of conversations that are probed, the most frequent first."""
_NAMED = 10
_OPENS = re.compile(r"<(think|thinking|thought|reasoning)>\s*$", re.IGNORECASE)

Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Conversation:
    """A row as it is rendered: its id, its messages, and the tools that it may call."""

    row_id: str
    messages: Sequence[Message]
    tools: Tools = None


def last_answer(row_id: str, prompt: Sequence[Message], answer: Sequence[Message], tools: Tools) -> Conversation:
    """A prompt with an answer to it, of which the answer alone is trained: what preferences and ratings are made of."""
    before = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in prompt]
    return Conversation(row_id, [*before, *answer], tools)


class RefusedRows(ValueError):
    """The chat template refuses rows; the message has its own words, and which rows."""


def refused(words: str, rows: Sequence[str], of: int) -> RefusedRows:
    """What to say of `rows`, of `of` in all, that a template refuses in these words."""
    advice = "Change those rows, or use a base whose template takes them"
    if re.search(r"system", words, re.IGNORECASE):
        advice = (
            "This template has no system turn: put what the system message says into the first user message of those "
            "rows, or use a base whose template has one"
        )
    elif re.search(r"alternat", words, re.IGNORECASE):
        advice = "Join turns of one role that follow each other, and begin with the user's"
    return RefusedRows(
        f"the base model's chat template refuses {len(rows):,} of {of:,} rows, in its own words: «{words}» (rows "
        f"{', '.join(rows[:_NAMED])}). {advice}"
    )


def shape_of(row: Conversation) -> Shape:
    """What of a conversation decides how a template writes it."""
    return (
        row.tools is not None and row.tools != "[]",
        *(
            (
                message["role"],
                not message["content"],
                message["content"] != message["content"].strip(),
                "</think>" in message["content"],
                bool(message.get("tool_calls")),
                bool(message.get("reasoning_content")),
                message.get("weight") == 0,
            )
            for message in row.messages
        ),
    )


def findings(
    tokenizer: "PreTrainedTokenizerBase", template: Template, rows: Iterable[Conversation]
) -> list[TemplateFinding]:
    """What is wrong, or worth knowing, about how `template` renders `rows`, each kind once with the rows that have it.

    Raises RefusedRows where the template refuses a shape.
    """
    by_shape: dict[Shape, list[Conversation]] = {}
    for row in rows:
        by_shape.setdefault(shape_of(row), []).append(row)
    ordered = sorted(by_shape.values(), key=len, reverse=True)
    found: dict[str, tuple[Conversation, list[str]]] = {}
    refusals: dict[str, list[str]] = {}
    for alike in ordered[:SHAPES]:
        try:
            names = _of_row(tokenizer, template, alike[0])
        except (JinjaError, TypeError) as error:
            refusals.setdefault(str(error).strip() or type(error).__name__, []).extend(row.row_id for row in alike)
            continue
        for name in dict.fromkeys(names):
            _, ids = found.setdefault(name, (alike[0], []))
            ids += [row.row_id for row in alike]
    for words, ids in refusals.items():
        # Both answers of a pair are a conversation of one row.
        every = {row.row_id for alike in ordered for row in alike}
        raise refused(words, list(dict.fromkeys(ids)), len(every))
    return [
        TemplateFinding(
            name=name,
            text=_WORDS[name][1],
            blocking=_WORDS[name][0],
            rows=len(dict.fromkeys(ids)),
            row_ids=list(dict.fromkeys(ids))[:_NAMED],
            example=_example(tokenizer, template, row),
        )
        for name, (row, ids) in sorted(found.items(), key=lambda item: (not _WORDS[item[0]][0], item[0]))
    ]


_WORDS: dict[str, tuple[bool, str]] = {
    "system_prompt_dropped": (
        True,
        "the chat template leaves the system message out: the model would be trained, and asked, without it. Put it "
        "into the first user message, or use a template that writes it",
    ),
    "turn_dropped": (
        True,
        "the chat template leaves what the user said in a turn out. Use a template that writes every turn",
    ),
    "answer_dropped": (
        True,
        "the chat template leaves what the assistant said in a turn out. Use a template that writes every turn",
    ),
    "tool_result_dropped": (
        True,
        "the chat template leaves out what a tool answered: the model would learn to answer without having read it. "
        "Use a base whose template has the role `tool`",
    ),
    "tool_calls_dropped": (
        True,
        "the chat template does not write tool calls: the model would never learn to call, and would learn to say "
        "nothing in their place. Use a base whose template has tool_calls, or take such rows out",
    ),
    "tools_dropped": (
        True,
        "the chat template does not write the tools of a row: the model would learn to call what it was never shown. "
        "Use a base whose template has tools, or take such rows out",
    ),
    "reasoning_dropped": (
        True,
        "the chat template does not write the reasoning of an answer (reasoning_content): it would not be learned. Use "
        "a base whose template has it, or write reasoning: drop to train the answers without it",
    ),
    "earlier_reasoning_dropped": (
        True,
        "the chat template leaves the reasoning of earlier turns out once a conversation goes on, so those turns "
        "would be trained without it, or behind what no server puts there. Give the assistant's earlier turns "
        "weight: 0, or split such conversations so that each reasoned answer is the last turn",
    ),
    "earlier_turns_rewritten": (
        True,
        "the chat template writes earlier turns otherwise once a conversation goes on, so later answers would be "
        "trained behind what no server puts there. Split such conversations so that each has one answer, or use a "
        "template whose output only grows with the messages",
    ),
    "header_trained": (
        True,
        "the generation block of the chat template is around the header of the assistant's turn too, so the header "
        "carries loss: the model would learn to write what the server writes. Begin {% generation %} behind it",
    ),
    "think_opened": (
        True,
        "the chat template's generation prompt opens a <think> block that the answers of these rows do not have: "
        "served, every answer would begin inside of a thought that it never learned to end. Give the rows "
        "reasoning_content, or use a template whose generation prompt ends with the header",
    ),
    "answer_untrained": (
        True,
        "the chat template marks an answer in part or not at all: what stands outside of its generation block carries "
        "no loss and would never be learned. Write one {% generation %} block around all that the assistant says in "
        "each turn",
    ),
    "answer_padded": (
        True,
        "the chat template writes words into an answer that the row does not have (quotes, a label, a remark), and "
        "they carry loss: the model would learn to say them. Write the content alone inside of {% generation %}",
    ),
    "generation_prompt_missing": (
        True,
        "the chat template has no generation prompt (add_generation_prompt does nothing), and the header before an "
        "answer carries no loss: served, the model would have to write it without having learned to. Write the header "
        "where add_generation_prompt is set",
    ),
    "earlier_stop_missing": (
        True,
        "the chat template ends the last answer of a conversation with its stop token, and earlier ones with none: the "
        "model would not learn to stop there. Write the token behind every answer",
    ),
    "content_rewritten": (
        True,
        "the chat template writes the text of a message otherwise than the row has it (cut, replaced or in other "
        "letters). Use a template that writes content as it is",
    ),
    "content_trimmed": (
        False,
        "the chat template trims white space around texts: it is trained and served without it",
    ),
}
"""Each finding: whether it blocks, and its cause with what to do."""


def _mark(turn: int, part: str) -> str:
    return f"zq{turn}x{part}qz"


def _marked(row: Conversation) -> tuple[list[Message], Tools, dict[tuple[int, str], str]]:
    """The row with a mark for each of its texts, and the marks by turn and field."""
    marks: dict[tuple[int, str], str] = {}
    messages: list[Message] = []

    def mark(turn: int, part: str) -> str:
        return marks.setdefault((turn, part), _mark(turn, part))

    for turn, message in enumerate(row.messages):
        given = {**message}
        if message["content"]:
            text = mark(turn, "content")
            thinks = "</think>" in message["content"]
            given["content"] = f"<think>\n{mark(turn, 'reasoning')}\n</think>\n\n{text}" if thinks else text
        if message.get("reasoning_content"):
            given["reasoning_content"] = mark(turn, "reasoning")
        if message.get("tool_calls"):
            calls = message["tool_calls"]
            calls = json.loads(calls) if isinstance(calls, str) else list(calls)
            # Of an id some templates ask a form, so it stays.
            given["tool_calls"] = json.dumps(
                [_call(call, mark(turn, f"calls{number}")) for number, call in enumerate(calls)]
            )
        messages.append(given)
    tools = row.tools
    if shape_of(row)[0]:
        offered = json.loads(tools) if isinstance(tools, str) else list(tools or [])
        tools = json.dumps([_tool(tool, mark(-1, f"tools{number}")) for number, tool in enumerate(offered)])
    return messages, tools, marks


def _call(call: Mapping[str, Any], mark: str) -> dict[str, Any]:
    return {**call, "function": {"name": mark, "arguments": {f"{mark}key": f"{mark}value"}}}


def _tool(tool: Mapping[str, Any], mark: str) -> dict[str, Any]:
    function = {**tool.get("function", {}), "name": mark}
    return {**tool, "type": "function", "function": function}


def _of_row(tokenizer: "PreTrainedTokenizerBase", template: Template, row: Conversation) -> list[str]:
    messages, tools, marks = _marked(row)
    try:
        names = _lost(tokenizer, template, messages, tools, marks)
    except (JinjaError, TypeError):
        # Whether it takes the row itself decides: a mark may be what it does not take.
        _text(tokenizer, template.training, row.messages, row.tools, False)
        names = []
    if names:
        # The rest would only say the same in other words.
        return names
    return [*_headers(tokenizer, template, row), *_rewritten(tokenizer, template, row)]


def _text(
    tokenizer: "PreTrainedTokenizerBase", template: str, messages: Sequence[Message], tools: Tools, prompt: bool
) -> str:
    given, offered = for_template(messages, tools)
    return text_of(tokenizer, template, given, tools=offered, add_generation_prompt=prompt)


def _lost(
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
    messages: Sequence[Message],
    tools: Tools,
    marks: Mapping[tuple[int, str], str],
) -> list[str]:
    """Names of what is marked and does not show, where it is trained or where a server puts it before an answer."""
    trained = [turn for turn, message in enumerate(messages) if carries_loss(message)]
    last = trained[-1] if trained else len(messages) - 1
    whole = _text(tokenizer, template.training, messages, tools, False)
    # The last answer is written with all that came before it; what comes after is nobody's context.
    missing = {key for key, mark in marks.items() if key[0] <= last and mark not in whole}
    for turn in trained:
        before = _text(tokenizer, template.serving, messages[:turn], tools, True) if turn else whole
        missing |= {key for key, mark in marks.items() if key[0] < turn and mark not in before}
    names = []
    for turn, part in sorted(missing):
        role = messages[turn]["role"] if turn >= 0 else "tools"
        if part == "reasoning" and turn != last:
            # A turn without loss is trained by nobody, with or without its reasoning.
            if carries_loss(messages[turn]):
                names.append("earlier_reasoning_dropped")
        elif part == "reasoning":
            names.append("reasoning_dropped")
        elif part.startswith("calls"):
            names.append("tool_calls_dropped")
        else:
            names.append(_DROPPED.get(role, "turn_dropped"))
    return names


_DROPPED = {
    "system": "system_prompt_dropped",
    "assistant": "answer_dropped",
    "tool": "tool_result_dropped",
    "tools": "tools_dropped",
}


def _headers(tokenizer: "PreTrainedTokenizerBase", template: Template, row: Conversation) -> list[str]:
    """What is wrong where an answer begins: a header that carries loss, a thought that is opened for none."""
    try:
        whole = encode(tokenizer, template, [row.messages], 1 << 30, [row.tools])[0]
    except TemplateError:
        # It says by itself why this row cannot be rendered.
        return []
    names, end, stops = [], 0, []
    for turn, message in enumerate(row.messages):
        if not carries_loss(message) or not turn:
            continue
        prompt = prompt_ids(tokenizer, template, row.messages[:turn], row.tools)
        header = [i for i, on in zip(whole.ids[end : len(prompt)], whole.trained[end : len(prompt)], strict=True) if on]
        kept = whole.ids[: len(prompt)] == prompt
        if kept and THINK.sub("", tokenizer.decode(header)).strip():
            names.append("header_trained")
        opened = _OPENS.search(tokenizer.decode(prompt[-16:]))
        if opened and not kept:
            names.append("think_opened")
        if not kept and not opened:
            names.append("earlier_turns_rewritten")
        # What the answer before this one ended with carries loss, and is no header.
        after = _after(tokenizer, template, row, turn)
        end = len(after) if after is not None else len(prompt)
        if kept:
            marked = list(zip(whole.ids, whole.trained, strict=True))[len(prompt) : len(after) if after else None]
            names += of_answer(tokenizer, message, marked)
            stops.append(ends(tokenizer, marked, blank_tokens(tokenizer)))
            # A turn that goes on behind a tool's result needs no header.
            asked = row.messages[turn - 1]["role"] == "user"
            if asked and not names and before_answer(tokenizer, marked):
                plain = without_prompt(tokenizer, template, row.messages[:turn], row.tools)
                names += ["generation_prompt_missing"] if prompt == plain else []
    if stops and stops[-1] and not all(stops):
        names.append("earlier_stop_missing")
    return names


def _after(tokenizer: "PreTrainedTokenizerBase", template: Template, row: Conversation, turn: int) -> list[int] | None:
    """The tokens up to the end of a turn, where the conversation goes on."""
    if turn + 1 >= len(row.messages):
        return None
    return encode(tokenizer, template, [row.messages[: turn + 1]], 1 << 30, [row.tools])[0].ids


def _rewritten(tokenizer: "PreTrainedTokenizerBase", template: Template, row: Conversation) -> list[str]:
    """Whether texts show as they are, or without the white space around them."""
    text = _text(tokenizer, template.training, row.messages, row.tools, False)
    contents = [m["content"] for m in row.messages if m["content"] and "</think>" not in m["content"]]
    plain = [content for content in contents if content.strip() and _shown(content.strip(), text) is False]
    if plain:
        return ["content_rewritten"]
    return ["content_trimmed"] if any(_shown(content, text) is False for content in contents) else []


def _shown(content: str, text: str) -> bool:
    return content in text or content in text.replace(BREAK, "")


def _example(tokenizer: "PreTrainedTokenizerBase", template: Template, row: Conversation) -> str:
    try:
        return marked_markdown(tokenizer, encode(tokenizer, template, [row.messages], 1 << 30, [row.tools])[0])
    except TemplateError:
        return ""
