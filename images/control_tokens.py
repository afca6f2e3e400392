"""Control tokens in what people write: which they are to a model, and how a text is kept from being taken for one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BREAK = "\U000f0000"
"""Private-use character that is put into a control token of somebody's text, where it is cut before it is tokenised."""

_ASSISTANT_MAY_WRITE = re.compile(
    r"(</?|\[/?)(think|thinking|thought|thoughts|reasoning|reflection|reason|scratchpad|answer|solution"
    r"|tool_calls?|function_calls?|functions?)[>\]]",
    re.IGNORECASE,
)
"""Tags that a model writes in its own turn (`<think>`, `<tool_call>`): there they are tokens, elsewhere text."""
_STRUCTURAL = re.compile(r"<[|｜].+[|｜]>", re.DOTALL)
_BRACKETED = re.compile(r"[<\[].*\w.*[>\]]", re.DOTALL)


@dataclass(frozen=True)
class ControlTokens:
    """Finds control tokens in what people wrote: `any` in all turns but the assistant's, `assistant` in those."""

    any: re.Pattern[str]
    assistant: re.Pattern[str]

    def of(self, role: object, field: str = "content") -> re.Pattern[str]:
        """What is a control token in a field of a turn of that role."""
        return self.assistant if role == "assistant" and field == "content" else self.any


def control_tokens(tokenizer: "PreTrainedTokenizerBase", template: str | None) -> ControlTokens:
    """The control tokens of a tokenizer under a chat template.

    Those are its special tokens, added tokens of the form `<|…|>`, and added tokens in brackets that the template
    writes. Words that somebody added to a vocabulary are none.
    """
    added = tuple((token.content, bool(token.special)) for token in tokenizer.added_tokens_decoder.values())
    return control_tokens_among(added, tuple(tokenizer.all_special_tokens), template or "")


@lru_cache(maxsize=32)
def control_tokens_among(added: tuple[tuple[str, bool], ...], special: tuple[str, ...], template: str) -> ControlTokens:
    """The same of the added tokens (text, whether special) and special tokens of a tokenizer that is not loaded."""
    found = {text for text, is_special in added if is_special} | set(special)
    found |= {
        text for text, _ in added if _STRUCTURAL.fullmatch(text) or (_BRACKETED.fullmatch(text) and text in template)
    }
    # One character cannot be cut in two, and is no more than itself.
    found = {text for text in found if len(text.strip()) > 1}
    return ControlTokens(_any_of(found), _any_of({text for text in found if not _ASSISTANT_MAY_WRITE.fullmatch(text)}))


def _any_of(texts: set[str]) -> re.Pattern[str]:
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def any_held(tokens: ControlTokens, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a control token stands in what is written in `messages`."""
    for message in messages:
        role = message.get("role")
        for field, value in message.items():
            pattern = tokens.of(role, field)
            if pattern.search(value) if isinstance(value, str) else any(map(pattern.search, strings(value))):
                return True
    return False


def held(tokens: ControlTokens, messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The control tokens that stand in what is written in `messages`, each once."""
    return list(
        dict.fromkeys(
            found.group()
            for message in messages
            for field, value in message.items()
            for text in strings(value)
            for found in tokens.of(message.get("role"), field).finditer(text)
        )
    )


def strings(value: Any) -> list[str]:
    """Every text in a message, a list of tools or a part of either, keys too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, part in value.items() for text in (str(key), *strings(part))]
    return [text for part in value for text in strings(part)] if isinstance(value, list | tuple) else []


def broken(value: Any, pattern: re.Pattern[str]) -> Any:
    """The same with a BREAK inside every control token."""
    if isinstance(value, str):
        text = value.replace(BREAK, "")
        while pattern.search(text):
            text = pattern.sub(lambda found: found.group()[0] + BREAK + found.group()[1:], text)
        return text
    if isinstance(value, Mapping):
        return {broken(key, pattern): broken(part, pattern) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [broken(part, pattern) for part in value]
    return value
