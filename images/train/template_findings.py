"""What a chat template does to conversations that nobody meant: messages that it drops, headers that carry loss.

Rows are told apart by shape (roles, and which fields a message has), and one row of each shape is rendered with marks
for its texts: what a template writes depends on those, hardly ever on the words.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError as JinjaError

from images.train.answer_findings import THINK, before_answer, ends, of_answer, stop_shows
from images.train.chat import (
    Template,
    TemplateError,
    blank_tokens,
    encode,
    marked_markdown,
    prompt_ids,
    without_prompt,
)
from images.train.content_findings import rewritten, some, stopped_early
from images.train.finding_words import WORDS
from images.train.marked_texts import Conversation, Shape, lost, marked, rendered, shape_of
from images.train.tokenizer_findings import findings_of_texts, loses_lines
from llmops_assets.records.conversation import carries_loss
from llmops_assets.records.training import TemplateFinding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHAPES = 256
"""Kinds of conversations that are probed, the most frequent first."""
_NAMED = 10
_OPENS = re.compile(r"<(think|thinking|thought|reasoning)>\s*$", re.IGNORECASE)


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


def findings(
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
    rows: Iterable[Conversation],
    stops: Collection[int] = (),
) -> list[TemplateFinding]:
    """What is wrong, or worth knowing, about how `template` renders `rows`, and about their tokens, each kind once with
    the rows that have it. `stops` are the tokens at which the trained model will stop.

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
    by_id = {row.row_id: row for alike in ordered for row in alike}
    texts = [(row_id, row.messages) for row_id, row in by_id.items()]
    of_tokens = findings_of_texts(tokenizer, template.training, texts)
    if "earlier_turns_rewritten" in found and loses_lines(tokenizer):
        # What the template ends its headers with is joined to the words behind it.
        of_tokens["tokens_lose_lines"] = found["earlier_turns_rewritten"][1]
    if any(WORDS[name][0] for name in of_tokens):
        # Texts that come back otherwise look as if the template had written them so.
        found = {}
    found |= {name: (by_id[ids[0]], ids) for name, ids in of_tokens.items()}
    details: dict[str, str] = {}
    if not any(WORDS[name][0] for name in found):
        # The rest would only say the same in other words.
        looked_at = some([row for alike in ordered for row in alike])
        early, details["answer_stops_early"] = stopped_early(tokenizer, template, looked_at, stops)
        by_words = {**rewritten(tokenizer, template, looked_at), **({"answer_stops_early": early} if early else {})}
        found |= {name: (by_id[ids[0]], ids) for name, ids in by_words.items()}
    return [
        TemplateFinding(
            name=name,
            text=WORDS[name][1] + (f": {details[name]}" if details.get(name) else ""),
            blocking=WORDS[name][0],
            rows=len(dict.fromkeys(ids)),
            row_ids=list(dict.fromkeys(ids))[:_NAMED],
            example=_example(tokenizer, template, row),
        )
        for name, (row, ids) in sorted(found.items(), key=lambda item: (not WORDS[item[0]][0], item[0]))
    ]


def _of_row(tokenizer: "PreTrainedTokenizerBase", template: Template, row: Conversation) -> list[str]:
    messages, tools, marks = marked(row)
    try:
        names = lost(tokenizer, template, messages, tools, marks)
    except (JinjaError, TypeError):
        # Whether it takes the row itself decides: a mark may be what it does not take.
        rendered(tokenizer, template.training, row.messages, row.tools, False)
        names = []
    if names:
        # The rest would only say the same in other words.
        return names
    return _headers(tokenizer, template, row)


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
            names += ["stop_shows"] if stop_shows(tokenizer, marked, blank_tokens(tokenizer)) else []
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


def _example(tokenizer: "PreTrainedTokenizerBase", template: Template, row: Conversation) -> str:
    try:
        return marked_markdown(tokenizer, encode(tokenizer, template, [row.messages], 1 << 30, [row.tools])[0])
    except TemplateError:
        return ""
