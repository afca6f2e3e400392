"""Decides whether an answer is right, and whether it is an answer at all."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmops_assets.evaluation import calls, number_judge, regexes
from llmops_assets.evaluation.letters import letter_of
from llmops_assets.specs.suite import JUDGE_KINDS, JudgeKind

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


_THOUGHTS = re.compile(
    r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)|\[THINK\].*?(?:\[/THINK\]|\Z)", re.DOTALL | re.IGNORECASE
)
_THOUGHTS_END = re.compile(r"\A.*(?:</(?:think|thinking|thought|reasoning)>|\[/THINK\])", re.DOTALL | re.IGNORECASE)


def without_reasoning(text: str) -> str:
    """`text` without what a model thinks before it answers: ``<think>…</think>`` and its like.

    Where the template itself opens the block, only its end is in the text; a block that was cut is all reasoning.
    """
    return _THOUGHTS_END.sub("", _THOUGHTS.sub("", text))


@dataclass(frozen=True)
class Judge:
    """A rule by which an answer is right.

    exact: it equals a reference. contains: it contains one. regex: a reference, as a pattern, is found in it.
    number: the number that it gives is the reference's (`number_judge`). multiple_choice: the choice that the model
    finds likeliest is a reference. letter: the option that it names is. calls: it calls the tools that the reference
    calls, with the same arguments (`calls`). llm: another model says so (`llm_judge`), and no rule here. All without
    reasoning and after `normalise`; nothing is folded in case, since 1 km and 1 KM are not the same in every answer.
    docs/evaluation.md has right and wrong pairs of each.
    """

    kind: JudgeKind = "exact"

    def __post_init__(self) -> None:
        if self.kind not in JUDGE_KINDS:
            raise ValueError(f"judge {self.kind!r} is none of {', '.join(JUDGE_KINDS)}")

    def check(self, references: Sequence[str]) -> None:
        """Raise ValueError when `references` cannot be judged by: none, an empty one, a bad pattern, no number."""
        if not references or any(not normalise(reference) for reference in references):
            raise ValueError("an item needs at least one reference, and none of them empty")
        for reference in map(normalise, references):
            if self.kind == "regex" and (reason := regexes.fault(reference)):
                raise ValueError(reason)
            if self.kind == "number" and (reason := number_judge.fault(reference)):
                raise ValueError(reason)
            if self.kind == "calls":
                calls.references_of(reference)

    def right(self, answer: str, references: Sequence[str], choices: Sequence[str] = (), parser: str = "json") -> bool:
        """Whether `answer` is right by any of `references`.

        `choices` are the options behind the letters of `letter`, `parser` reads the calls of `calls`.
        """
        if self.kind == "llm":
            raise ValueError("an LLM judge decides by its verdicts, not by a rule")
        answer = normalise(without_reasoning(answer))
        if self.kind == "letter":
            return letter_of(answer, choices, None if choices else _MOST_LETTERS) in map(normalise, references)
        if self.kind == "calls":
            return _same_calls(answer, references, parser)
        return any(_RULES[self.kind](answer, normalise(reference)) for reference in references)


_MOST_LETTERS = 10
"""Where a question lists its options itself, so many letters may be named."""


def _same_calls(answer: str, references: Sequence[str], parser: str) -> bool:
    try:
        given = calls.calls_in(answer, parser)
    except calls.NoCall:
        return False
    # No call is wanted, and none made: but silence is no answer.
    return any(
        calls.same_calls(wanted, given) and bool(given or answer) for wanted in map(calls.references_of, references)
    )


_RULES: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda answer, reference: answer == reference,
    "contains": lambda answer, reference: reference in answer,
    "regex": lambda answer, reference: re.search(reference, answer) is not None,
    "number": number_judge.right,
    "multiple_choice": lambda answer, reference: answer == reference,
}


def is_refusal(answer: str, references: Sequence[str] = ()) -> bool:
    """Whether `answer` declines to answer where its references do not: by phrases in Korean and English.

    A help desk's right answer may well be that something cannot be done; then saying so is no refusal.
    """
    return bool(_REFUSAL.search(normalise(answer))) and not any(_REFUSAL.search(normalise(r)) for r in references)
