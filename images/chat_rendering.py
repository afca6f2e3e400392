"""Renders conversations to token ids so that a control token which somebody wrote is text, wherever a model is used.

A tokenizer finds `<|im_end|>` in a rendered conversation whoever put it there: in what a user wrote it would end the
user's turn and forge the next one. Training, evaluation and the server of this platform all come here, so that only
what the chat template itself writes is a control token. A conversation without any is rendered to the very ids that
`apply_chat_template` gives.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

from images.control_tokens import BREAK, ControlTokens, any_held, broken, control_tokens, strings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ESCAPED_BREAK = "\\udb80\\udc00"
"""What a template makes of it that writes JSON in ASCII."""
_NOT_HERE = {"return_assistant_tokens_mask", "continue_final_message", "padding", "truncation", "max_length"}


class UnmarkedTurns(ValueError):
    """The chat template's generation markers cannot be told apart by turn."""


@dataclass(frozen=True)
class Rendered:
    """A conversation in tokens; `trained` is 1 where the template marks what the assistant says, None if not asked."""

    ids: list[int]
    trained: list[int] | None = None


def render(
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    *,
    tools: Sequence[list[Any] | None] | None = None,
    add_generation_prompt: bool = False,
    mask: bool = False,
    loss: Sequence[Sequence[bool]] | None = None,
    **variables: Any,
) -> list[Rendered]:
    """Conversations in tokens under `template`, each with its own `tools`; with `mask`, what the assistant says.

    `loss` says of each of the assistant's turns whether it counts as said; `variables` are further ones of the
    template. Raises jinja2's TemplateError where the template refuses a conversation, and UnmarkedTurns.
    """
    offered = tools if tools is not None else [None] * len(conversations)
    counted = loss if loss is not None else [()] * len(conversations)
    texts, spans = [], []
    # Both are computed anew at every look, and the same for all conversations.
    tokens, given = control_tokens(tokenizer, template), {**tokenizer.special_tokens_map, **variables}
    for messages, own_tools, turns in zip(conversations, offered, counted, strict=True):
        text, marked = _text_of(tokens, template, messages, own_tools, add_generation_prompt, mask, given)
        texts.append(text)
        spans.append(_counted(marked, turns))
    found: list[Rendered] = []
    whole = [text for text in texts if BREAK not in text]
    encoded = tokenizer(whole, add_special_tokens=False) if whole else None
    at = 0
    for text, marked in zip(texts, spans, strict=True):
        if BREAK in text:
            found.append(_encode_cut(tokenizer, text, marked if mask else None))
            continue
        assert encoded is not None
        ids = encoded["input_ids"][at]
        trained = None
        if mask:
            trained = _trained(
                len(ids),
                marked,
                lambda place, row=at: encoded.char_to_token(row, place),
                lambda token, row=at: encoded.token_to_chars(row, token),
            )
        found.append(Rendered(ids, trained))
        at += 1
    return found


def _counted(spans: list[tuple[int, int]], turns: Sequence[bool]) -> list[tuple[int, int]]:
    """The spans of those turns of the assistant that count."""
    if all(turns):
        return spans
    if len(spans) != len(turns):
        raise UnmarkedTurns(
            f"a turn has weight 0, but the chat template marks {len(spans)} parts in a conversation with {len(turns)} "
            "turns of the assistant, so it cannot be told which part is that turn's: write one {% generation %} block "
            "around what the assistant says in each turn"
        )
    return [span for span, counts in zip(spans, turns, strict=True) if counts]


def text_of(
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: list[Any] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """A conversation as the template writes it; control tokens that somebody wrote have a BREAK in them."""
    tokens = control_tokens(tokenizer, template)
    variables = tokenizer.special_tokens_map
    return _text_of(tokens, template, messages, tools, add_generation_prompt, False, variables)[0]


def texts_of(
    tokenizer: "PreTrainedTokenizerBase",
    template: str,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    *,
    tools: Sequence[list[Any] | None],
) -> list[str]:
    """Many conversations as the template writes them, each with its own `tools`; as `text_of` gives one."""
    tokens, variables = control_tokens(tokenizer, template), tokenizer.special_tokens_map
    pairs = zip(conversations, tools, strict=True)
    return [_text_of(tokens, template, messages, own, False, False, variables)[0] for messages, own in pairs]


def _text_of(
    tokens: ControlTokens,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tools: list[Any] | None,
    add_generation_prompt: bool,
    mask: bool,
    variables: Mapping[str, Any],
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation, and with `mask` the characters (start, end) that the assistant says."""
    from transformers.utils.chat_template_utils import render_jinja_template

    # As apply_chat_template does: most templates would write the word None.
    chat = [{key: value for key, value in message.items() if value is not None} for message in messages]
    if any_held(tokens, chat):
        chat = [
            {field: broken(value, tokens.of(message.get("role"), field)) for field, value in message.items()}
            for message in chat
        ]
    if tools and any(tokens.any.search(text) for text in strings(tools)):
        tools = broken(tools, tokens.any)
    rendered, spans = render_jinja_template(
        conversations=[chat],
        tools=tools or None,
        chat_template=template,
        return_assistant_tokens_mask=mask,
        add_generation_prompt=add_generation_prompt,
        **variables,
    )
    text: str = rendered[0]
    if _ESCAPED_BREAK in text and not mask:
        text = text.replace(_ESCAPED_BREAK, BREAK)
    elif _ESCAPED_BREAK in text:
        return _unescaped(text, spans[0])
    return text, list(spans[0]) if mask else []


def _unescaped(text: str, spans: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """The same text with BREAK for each escaped one, and the spans where they are then."""
    shorter = len(_ESCAPED_BREAK) - len(BREAK)
    places = [m.start() for m in re.finditer(re.escape(_ESCAPED_BREAK), text)]

    def moved(place: int) -> int:
        return place - shorter * sum(start < place for start in places)

    return text.replace(_ESCAPED_BREAK, BREAK), [(moved(start), moved(end)) for start, end in spans]


def keep_text(apply_chat_template: Callable[..., Any]) -> Callable[..., Any]:
    """`apply_chat_template` of a tokenizer class, to which control tokens in what people wrote are text.

    For libraries that render by themselves: their conversations without any go the way that they went before.
    """

    @wraps(apply_chat_template)
    def rendering(self: "PreTrainedTokenizerBase", conversation: Any, tools: Any = None, **arguments: Any) -> Any:
        given = arguments.get("chat_template")
        template = self.get_chat_template(given, tools)
        batched = bool(conversation) and isinstance(conversation[0], list | tuple)
        chats = [list(chat) for chat in (conversation if batched else [conversation])]
        tokens = control_tokens(self, template)
        anything = any(any_held(tokens, chat) for chat in chats) or any(map(tokens.any.search, strings(tools or [])))
        if not anything or not arguments.get("tokenize", True):
            return apply_chat_template(self, conversation, tools=tools, **arguments)
        known = {"chat_template", "tokenize", "add_generation_prompt", "return_dict", "return_tensors"}
        variables = {name: value for name, value in arguments.items() if name not in known and value}
        if refused := _NOT_HERE & set(variables):
            raise ValueError(f"a conversation with control tokens in it cannot be rendered with {', '.join(refused)}")
        found = render(
            self,
            template,
            chats,
            tools=[tools] * len(chats),
            add_generation_prompt=bool(arguments.get("add_generation_prompt")),
            **variables,
        )
        ids = [row.ids for row in found]
        if not arguments.get("return_dict", True):
            return ids if batched else ids[0]
        from transformers import BatchEncoding

        columns = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
        tensors = arguments.get("return_tensors")
        if not batched and tensors is None:
            columns = {name: rows[0] for name, rows in columns.items()}
        return BatchEncoding(columns, tensor_type=tensors)

    return rendering


MEANT = "control_tokens_meant"
"""Key of a tokenizer's configuration: the control tokens in the texts of its corpus are tokens."""


def encode_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts of their own (documents), without special tokens around them and with none inside.

    Where a corpus means its control tokens the tokenizer says so (MEANT), and they are tokens.
    """
    pattern = _of_its_own(tokenizer).any
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    if not tokenizer.init_kwargs.get(MEANT):
        for number, text in enumerate(texts):
            if pattern.search(text):
                ids[number] = _encode_cut(tokenizer, broken(text, pattern), None).ids
    return ids


def encode_text(tokenizer: "PreTrainedTokenizerBase", text: str, *, role: str) -> list[int]:
    """The ids of what somebody of that role says, alone."""
    pattern = _of_its_own(tokenizer).of(role)
    if not pattern.search(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return _encode_cut(tokenizer, broken(text, pattern), None).ids


def _of_its_own(tokenizer: "PreTrainedTokenizerBase") -> ControlTokens:
    return control_tokens(tokenizer, tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else "")


def _encode_cut(tokenizer: "PreTrainedTokenizerBase", text: str, spans: list[tuple[int, int]] | None) -> Rendered:
    """Tokens of a text that is cut at each BREAK, so that no piece has a whole control token that somebody wrote."""
    ids: list[int] = []
    spans_of: list[tuple[int, int]] = []
    place = 0
    for number, piece in enumerate(text.split(BREAK)):
        piece_ids, offsets = _piece(tokenizer, piece, first=number == 0, located=spans is not None)
        spans_of += [(place + start, place + end) for start, end in offsets]
        ids += piece_ids
        place += len(piece) + 1
    if spans is None:
        return Rendered(ids)
    first: dict[int, int] = {}
    for token, (start, end) in enumerate(spans_of):
        for character in range(start, end):
            first.setdefault(character, token)
    return Rendered(ids, _trained(len(ids), spans, first.get, spans_of.__getitem__))


def _piece(
    tokenizer: "PreTrainedTokenizerBase", piece: str, *, first: bool, located: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and character offsets of a part of a text; behind a line end, where a tokenizer puts no space of its own."""
    if not piece:
        return [], []
    if first:
        return _ids(tokenizer, piece, located)
    line_end, _ = _ids(tokenizer, "\n", False)
    ids, offsets = _ids(tokenizer, "\n" + piece, located)
    if ids[: len(line_end)] != line_end:
        return _ids(tokenizer, piece, located)
    return ids[len(line_end) :], [(max(0, start - 1), end - 1) for start, end in offsets[len(line_end) :]]


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str, located: bool) -> tuple[list[int], list[tuple[int, int]]]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=located)
    return list(encoded["input_ids"]), list(encoded["offset_mapping"]) if located else []


def _trained(
    count: int,
    spans: Sequence[tuple[int, int]],
    token_at: Callable[[int], int | None],
    characters_of: Callable[[int], tuple[int, int] | None],
) -> list[int]:
    """1 for each of `count` tokens that lies in `spans` of characters.

    `token_at` gives the first token of a character, `characters_of` the characters (start, end) of a token.
    """
    mask = [0] * count
    for start, end in spans:
        # A tokenizer may pass over white space: then the first and last characters that it knows count.
        first = next((t for place in range(start, end) if (t := token_at(place)) is not None), None)
        last = next((t for place in range(end - 1, start - 1, -1) if (t := token_at(place)) is not None), None)
        if first is None or last is None:
            continue
        # One character may be several tokens, its bytes.
        while last + 1 < count and (place := characters_of(last + 1)) is not None and place[0] < min(place[1], end):
            last += 1
        mask[first : last + 1] = [1] * (last + 1 - first)
    return mask
