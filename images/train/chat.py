"""Renders conversations to tokens, and marks the tokens that the model is trained to write."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from images.chat_rendering import UnmarkedTurns, render
from images.train.template_clock import pinned
from llmops_assets.records.conversation import carries_loss, for_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]
"""A message of a canonical row; only role and content are always there."""
Tools = str | Sequence[Any] | None
"""The tools of a canonical row: JSON or parsed, None for a row without."""

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message['content'] + '<|im_end|>' -}}"
    "{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML; what the assistant says and the token that ends its turn stand between the generation markers."""

PLAIN = (
    "{%- if bos_token is defined and bos_token -%}{{- bos_token -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '### ' + message['role'] | capitalize + ':\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- message['content'] -}}"
    "{%- endif -%}"
    "{{- '\\n\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '### Assistant:\\n' -}}{%- endif -%}"
)
"""For a base model without a chat template and without ChatML's tokens: it needs no token that the base never saw."""


class TemplateError(ValueError):
    """The chat template cannot tell which tokens the assistant wrote."""


@dataclass(frozen=True)
class Template:
    """How rows are rendered: `training` marks what the assistant says, `serving` goes into the trained model.

    They render the same text. With origin `difference` nothing marks the assistant's part, and it is found as what a
    message adds to the rendering of those before it.
    """

    training: str
    serving: str
    origin: Literal["own", "trl", "difference", "chatml", "plain"]


@dataclass(frozen=True)
class Row:
    """One rendered conversation: `ids`, and `trained` (1 where the token carries loss), cut to the allowed length."""

    ids: list[int]
    trained: list[int]
    truncated: bool
    cut_answer: bool
    leading_bos: int
    stop: int | None
    """Last trained token that is not white space, when the row was not cut."""


def choose_template(tokenizer: "PreTrainedTokenizerBase", date: str | None = None) -> Template:
    """The templates for training on and serving with `tokenizer`; one that asks for the time is told `date`, ISO 8601.

    Its own template where that has generation markers; else TRL's patched version of it; else its own with the
    assistant's part found by difference. A tokenizer without one gets ChatML if it has ChatML's tokens, and a plain
    template if not.
    """
    found = _chosen(tokenizer)
    if date is None:
        return found
    return replace(found, training=pinned(found.training, date), serving=pinned(found.serving, date))


def _chosen(tokenizer: "PreTrainedTokenizerBase") -> Template:
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if not own:
        chatml = {"<|im_start|>", "<|im_end|>"} <= set(tokenizer.get_vocab())
        if not chatml and not tokenizer.eos_token:
            raise TemplateError("the tokenizer has no chat template and no end-of-sequence token to end an answer with")
        text = CHATML if chatml else PLAIN
        return Template(text, text, "chatml" if chatml else "plain")
    if "{%- generation" in own or "{% generation" in own:
        return Template(own, own, "own")
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(own):
        return Template(own, own, "own")
    try:
        patched = get_training_chat_template(tokenizer)
    except ValueError:
        return Template(own, own, "difference")
    return Template(patched or own, own, "trl" if patched else "own")


def template_hash(template: str | None) -> str | None:
    """12 hex digits of a chat template's text."""
    return hashlib.sha256(template.encode()).hexdigest()[:12] if template else None


def encode(
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
    conversations: Sequence[Sequence[Message]],
    max_length: int,
    tools: Sequence[Tools] | None = None,
) -> list[Row]:
    """Render `conversations`, each with its own `tools`, to at most `max_length` tokens each.

    Raises TemplateError when a mask cannot be found, and jinja2's where the template refuses a conversation.
    """
    offered = tools if tools is not None else [None] * len(conversations)
    if template.origin == "difference":
        pairs = [_by_difference(tokenizer, template, *pair) for pair in zip(conversations, offered, strict=True)]
    else:
        given = [for_template(*pair) for pair in zip(conversations, offered, strict=True)]
        spoken = [[carries_loss(m) for m in messages if m["role"] == "assistant"] for messages in conversations]
        try:
            rendered = render(
                tokenizer,
                template.training,
                [messages for messages, _ in given],
                tools=[own for _, own in given],
                mask=True,
                loss=spoken,
            )
        except UnmarkedTurns as error:
            raise TemplateError(str(error)) from error
        pairs = [(row.ids, row.trained or [0] * len(row.ids)) for row in rendered]
        if template.origin == "trl" and not _keeps_turns(tokenizer, template):
            pairs = [
                _by_prompts(tokenizer, template, messages, own) if len(turns) > 1 else pair
                for messages, own, turns, pair in zip(conversations, offered, spoken, pairs, strict=True)
            ]
    blank = blank_tokens(tokenizer)
    return [_row(ids, mask, max_length, tokenizer.bos_token_id, blank) for ids, mask in pairs]


def prompt_ids(
    tokenizer: "PreTrainedTokenizerBase", template: Template, messages: Sequence[Message], tools: Tools = None
) -> list[int]:
    """The tokens that a server makes of `messages` before it lets the model answer."""
    given, offered = for_template(messages, tools)
    return render(tokenizer, template.serving, [given], tools=[offered], add_generation_prompt=True)[0].ids


def without_prompt(
    tokenizer: "PreTrainedTokenizerBase", template: Template, messages: Sequence[Message], tools: Tools = None
) -> list[int]:
    """The tokens of `messages` as a server writes them, without what asks for an answer."""
    given, offered = for_template(messages, tools)
    return render(tokenizer, template.serving, [given], tools=[offered])[0].ids


def keeps_prefixes(
    tokenizer: "PreTrainedTokenizerBase", template: Template, messages: Sequence[Message], tools: Tools = None
) -> bool:
    """Whether every answer in `messages` that is trained stands behind the very tokens that a server puts before it."""
    ids = encode(tokenizer, template, [messages], 1 << 30, [tools])[0].ids
    for turn, message in enumerate(messages):
        if carries_loss(message) and turn:
            prompt = prompt_ids(tokenizer, template, messages[:turn], tools)
            if ids[: len(prompt)] != prompt:
                return False
    return True


def marked_markdown(tokenizer: "PreTrainedTokenizerBase", row: Row, limit: int = 400) -> str:
    """The row as Markdown: trained tokens bold, special tokens and line ends visible, cut after `limit` tokens."""
    parts: list[str] = []
    start = 0
    ids, trained = row.ids[:limit], row.trained[:limit]
    while start < len(ids):
        end = start
        while end < len(ids) and trained[end] == trained[start]:
            end += 1
        text = tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for sign in "\\`*_{}[]<>#|~":
            text = text.replace(sign, f"\\{sign}")
        lines = text.split("\n")
        if trained[start]:
            lines = [f"**{line.strip()}**" if line.strip() else "" for line in lines]
        parts.append(" ⏎<br>".join(lines))
        start = end
    counts = f"{sum(row.trained)} of {len(row.ids)} tokens carry loss (bold)"
    return f"{counts}\n\n> {''.join(parts)}{' …' if len(row.ids) > limit else ''}\n"


def stop_at(model: Any, tokenizer: "PreTrainedTokenizerBase", stop_token: str | None) -> None:
    """Make generation end at the token that answers were trained to end with, and at those the model knew already."""
    config = model.generation_config
    known = config.eos_token_id
    known = [] if known is None else [known] if isinstance(known, int) else list(known)
    wanted = [tokenizer.convert_tokens_to_ids(stop_token) if stop_token else None, tokenizer.eos_token_id]
    stops = list(dict.fromkeys(token for token in (*wanted, *known) if token is not None))
    config.eos_token_id = stops[0] if len(stops) == 1 else stops or None
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id


def _row(ids: Sequence[int], mask: Sequence[int], max_length: int, bos: int | None, blank: set[int]) -> Row:
    ids, mask = list(ids), [int(bool(m)) for m in mask]
    truncated = len(ids) > max_length
    leading = 0
    while bos is not None and leading < len(ids) and ids[leading] == bos:
        leading += 1
    stop = None
    if not truncated:
        backwards = zip(reversed(ids), reversed(mask), strict=True)
        stop = next((token for token, trained in backwards if trained and token not in blank), None)
    return Row(
        ids=ids[:max_length],
        trained=mask[:max_length],
        truncated=truncated,
        cut_answer=any(mask[max_length:]),
        leading_bos=leading,
        stop=stop,
    )


def blank_tokens(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Tokens of white space alone, among the short ones that templates end a turn with."""
    blank = set()
    for text in ("\n", "\n\n", " ", "\r\n"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        blank |= {i for i in ids if tokenizer.decode([i]).strip() == "" and i not in tokenizer.all_special_ids}
    return blank


_TWO_TURNS: list[Message] = [
    {"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, "abcd", strict=True)
]


def _keeps_turns(tokenizer: "PreTrainedTokenizerBase", template: Template) -> bool:
    """Whether the patched template of training writes earlier turns as the one of serving does.

    Thinking templates do not: a server puts an empty `<think>` block before the last answer alone, and leaves earlier
    thoughts out, where the patched one writes both everywhere.
    """
    trained = render(tokenizer, template.training, [_TWO_TURNS])[0].ids
    prompt = prompt_ids(tokenizer, template, _TWO_TURNS[:3])
    return trained[: len(prompt)] == prompt


def _by_prompts(
    tokenizer: "PreTrainedTokenizerBase", template: Template, messages: Sequence[Message], tools: Tools
) -> tuple[list[int], list[int]]:
    """A conversation as a server writes it, every trained answer from behind its prompt to the token that ends it.

    A control token in what people wrote is text, so the first one of its kind behind a prompt is the template's own.
    """
    given, offered = for_template(messages, tools)

    def ids_of(count: int) -> list[int]:
        return render(tokenizer, template.serving, [given[:count]], tools=[offered])[0].ids

    ids, blank = ids_of(len(messages)), blank_tokens(tokenizer)
    mask = [0] * len(ids)
    for turn, message in enumerate(messages):
        if turn == 0 or not carries_loss(message):
            continue
        before = prompt_ids(tokenizer, template, messages[:turn], tools)
        stop = next((token for token in reversed(ids_of(turn + 1)) if token not in blank), None)
        if ids[: len(before)] != before or stop is None or stop not in ids[len(before) :]:
            raise TemplateError(
                "the base model's chat template renders earlier messages differently once more follow, so the "
                "assistant's part cannot be found: split the conversations so that each has one answer"
            )
        end = ids.index(stop, len(before)) + 1
        mask[len(before) : end] = [1] * (end - len(before))
    return ids, mask


def _by_difference(
    tokenizer: "PreTrainedTokenizerBase", template: Template, messages: Sequence[Message], tools: Tools
) -> tuple[list[int], list[int]]:
    given, offered = for_template(messages, tools)

    def ids_of(count: int, prompt: bool) -> list[int]:
        part = given[:count]
        return render(tokenizer, template.training, [part], tools=[offered], add_generation_prompt=prompt)[0].ids

    ids = ids_of(len(messages), False)
    mask = [0] * len(ids)
    for turn, message in enumerate(messages):
        if turn == 0 or not carries_loss(message):
            continue
        before, after = ids_of(turn, True), ids_of(turn + 1, False)
        if ids[: len(before)] != before or ids[: len(after)] != after:
            raise TemplateError(
                "the base model's chat template renders earlier messages differently once more follow, so the "
                "assistant's part cannot be found: add {% generation %} markers to it"
            )
        mask[len(before) : len(after)] = [1] * (len(after) - len(before))
    return ids, mask
