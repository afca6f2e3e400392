"""What a chat template trains of an answer: all that the row says, nothing that it does not, and where it ends."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK = re.compile(r"</?(think|thinking|thought|reasoning|seed:think)>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]{1,40}>|\[/?[A-Z_]+\]")
_UNTRAINED = 0.1
"""Share of an answer's letters that may carry no loss: tokens at its edge may be the template's too."""
_PADDING = 2
"""Letters that are no slip of such a token any more."""

Marked = Sequence[tuple[int, int]]
"""Tokens of a turn behind its prompt, each with 1 where it carries loss."""


def of_answer(tokenizer: "PreTrainedTokenizerBase", message: Mapping[str, Any], turn: Marked) -> list[str]:
    """Names of what is wrong with how the answer `message` is marked in `turn`."""
    if not any(on for _, on in turn):
        return ["answer_untrained"]
    content = _letters(message["content"] or "")
    if not content or message.get("tool_calls") or message.get("reasoning_content") or "</think>" in content:
        # Of calls and thoughts a template writes more than the row has.
        return []
    for piece in _pieces(tokenizer, turn):
        if content in _letters(tokenizer.decode([token for token, _ in piece])):
            trained = _letters(tokenizer.decode([token for token, on in piece if on]))
            if content not in trained:
                lost = len(content) - len(trained)
                return ["answer_untrained"] if not trained or lost > max(_PADDING, _UNTRAINED * len(content)) else []
            # A control token that the tokenizer does not have is a fault of its own: `stop_token_trained`.
            added = _TAG.sub("", trained.replace(content, "", 1))
            return ["answer_padded"] if len(added) >= _PADDING else []
    return []


def before_answer(tokenizer: "PreTrainedTokenizerBase", turn: Marked) -> str:
    """What stands between the prompt and the first token that carries loss, less the tags of a thought."""
    first = next((at for at, (_, on) in enumerate(turn) if on), len(turn))
    return _letters(THINK.sub("", tokenizer.decode([token for token, _ in turn[:first]])))


def ends(tokenizer: "PreTrainedTokenizerBase", turn: Marked, blank: set[int]) -> bool:
    """Whether the last token that carries loss, white space aside, is a control token: what stops a server."""
    return _last(turn, blank) in _own(tokenizer)


def stop_shows(tokenizer: "PreTrainedTokenizerBase", turn: Marked, blank: set[int]) -> bool:
    """Whether the control token that ends a turn is left in the text of an answer, where control tokens are left out:
    it is in the tokenizer, and not as a special one."""
    last = _last(turn, blank)
    if last is None or last not in _own(tokenizer):
        return False
    return bool(tokenizer.decode([last], skip_special_tokens=True).strip())


def _last(turn: Marked, blank: set[int]) -> int | None:
    """The last token that carries loss, white space aside."""
    return next((token for token, on in reversed(turn) if on and token not in blank), None)


def _own(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    return set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())


def _pieces(tokenizer: "PreTrainedTokenizerBase", turn: Marked) -> Iterator[list[tuple[int, int]]]:
    """The parts of a turn between control tokens: what a channel or a role is called stands in one of its own."""
    own, piece = _own(tokenizer), []
    for token, on in turn:
        if token in own:
            yield piece
            piece = []
        else:
            piece.append((token, on))
    yield piece


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).replace("\ufffd", "").split())
