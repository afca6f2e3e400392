"""Decides whether an answer is right, and whether it is an answer at all."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmops_assets.specs.suite import JUDGE_KINDS, JudgeKind

_NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")
_REFUSAL = re.compile(
    r"(?:도와\s?드릴|답변\s?드릴|답해\s?드릴|제공할|제공해\s?드릴|알려\s?드릴)\s?수\s?(?:가\s?)?없"
    r"|답변하기\s?어렵|답변이\s?어렵|도움을\s?드릴\s?수\s?(?:가\s?)?없"
    r"|\bI(?:['’]m| am)? (?:sorry|unable|can(?:no|['’])t (?:help|assist|answer|provide))"
    r"|\bas an AI\b",
    re.IGNORECASE,
)


def normalise(text: str) -> str:
    """NFC without surrounding white space. Hangul decomposed (NFD) looks the same and would never match."""
    return unicodedata.normalize("NFC", text).strip()


@dataclass(frozen=True)
class Judge:
    """A rule by which an answer is right.

    exact: it equals a reference. contains: it contains one. regex: a reference, as a pattern, is found in it.
    number: its last number equals a reference's, thousands separators aside. multiple_choice: the choice that the model
    finds likeliest is a reference. llm: another model says so (`llm_judge`), and no rule here. All after `normalise`;
    nothing is folded in case, since 1 km and 1 KM are not the same in every answer.
    """

    kind: JudgeKind = "exact"

    def __post_init__(self) -> None:
        if self.kind not in JUDGE_KINDS:
            raise ValueError(f"judge {self.kind!r} is none of {', '.join(JUDGE_KINDS)}")

    def check(self, references: Sequence[str]) -> None:
        """Raise ValueError when `references` cannot be judged by: none, an empty one, a bad pattern, no number."""
        if not references or any(not normalise(reference) for reference in references):
            raise ValueError("an item needs at least one reference, and none of them empty")
        for reference in references:
            if self.kind == "regex":
                try:
                    re.compile(normalise(reference))
                except re.error as error:
                    raise ValueError(f"{reference!r} is no regular expression: {error}") from error
            if self.kind == "number" and _last_number(normalise(reference)) is None:
                raise ValueError(f"{reference!r} holds no number to compare with")

    def right(self, answer: str, references: Sequence[str]) -> bool:
        """Whether `answer` is right by any of `references`."""
        if self.kind == "llm":
            raise ValueError("an LLM judge decides by its verdicts, not by a rule")
        answer = normalise(answer)
        return any(_RULES[self.kind](answer, normalise(reference)) for reference in references)


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _same_number(answer: str, reference: str) -> bool:
    number = _last_number(answer)
    return number is not None and number == _last_number(reference)


_RULES: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda answer, reference: answer == reference,
    "contains": lambda answer, reference: reference in answer,
    "regex": lambda answer, reference: re.search(reference, answer) is not None,
    "number": _same_number,
    "multiple_choice": lambda answer, reference: answer == reference,
}


def is_refusal(answer: str, references: Sequence[str] = ()) -> bool:
    """Whether `answer` declines to answer where its references do not: by phrases in Korean and English.

    A help desk's right answer may well be that something cannot be done; then saying so is no refusal.
    """
    return bool(_REFUSAL.search(normalise(answer))) and not any(_REFUSAL.search(normalise(r)) for r in references)
