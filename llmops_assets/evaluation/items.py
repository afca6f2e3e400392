"""One question of a suite: made of a dataset row, with the references that its answer is judged by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmops_assets.evaluation import calls, letters
from llmops_assets.evaluation.judge import Judge, normalise, without_reasoning
from llmops_assets.records.conversation import TOOLS, for_template
from llmops_assets.specs.suite import LENGTH_NORMS, LengthNorm, SuiteSpec

NO_CATEGORY = "(none)"


@dataclass(frozen=True)
class Item:
    """One question with the references that its answer is judged by."""

    id: str
    suite: str
    category: str
    messages: tuple[Mapping[str, Any], ...]
    references: tuple[str, ...]
    judge: Judge = field(default_factory=Judge)
    choices: tuple[str, ...] = ()
    length_norm: LengthNorm = "none"
    cluster: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    options: tuple[str, ...] = ()
    """The texts behind the letters of a question that lists its options."""

    @property
    def key(self) -> str:
        """Names the item among those of all suites: two suites may share a row."""
        return f"{self.suite}/{self.id}"

    @property
    def question(self) -> str:
        """The last thing the user said."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")


def item_of(row: Mapping[str, Any], suite: str, spec: SuiteSpec, cluster_by: str | None, labels: Sequence[str]) -> Item:
    """The item of a chat row; `labels` are the choices where a multiple-choice row names none.

    Raises ValueError where the row cannot be asked, or no answer could be judged.
    """
    messages = row["messages"] or []
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError("the last turn must be the assistant's, after a question")
    extra = json.loads(row["extra"]) if row["extra"] else {}
    asked, tools = for_template(messages[:-1], row.get(TOOLS))
    answer = messages[-1]
    rule = Judge(extra.get("judge") or ("calls" if answer.get("tool_calls") else spec.judge))
    if rule.kind == "calls":
        references: tuple[str, ...] = (calls.reference_of(answer.get("tool_calls")),)
    else:
        given = [without_reasoning(answer["content"]), *_texts(extra, "references")]
        references = tuple(normalise(text) for text in given)
    rule.check(references)
    length_norm = extra.get("length_norm") or spec.length_norm
    if length_norm not in LENGTH_NORMS:
        raise ValueError(f"length_norm {length_norm!r} is none of {', '.join(LENGTH_NORMS)}")
    choices, options = _choices(extra, "choices"), _choices(extra, "options")
    if rule.kind in ("multiple_choice", "letter"):
        asked, references, choices, options = _optioned(rule, asked, references, choices or tuple(labels), options)
    cluster = extra.get(cluster_by) if cluster_by else None
    return Item(
        id=row["row_id"],
        suite=suite,
        category=row["category"] or NO_CATEGORY,
        messages=tuple(asked),
        references=references,
        judge=rule,
        choices=choices if rule.kind == "multiple_choice" else (),
        length_norm=length_norm,
        cluster=None if cluster is None else str(cluster),
        options=options if rule.kind == "letter" else (),
        tools=tuple(tools or ()),
    )


def _texts(extra: Mapping[str, Any], field: str) -> list[str]:
    value = extra.get(field) or []
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _choices(extra: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = extra.get(field)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError(f"`{field}` in the metadata is no list")
    return tuple(normalise(str(text)) for text in value)


_Asked = tuple[list[dict[str, Any]], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _optioned(
    rule: Judge,
    asked: list[dict[str, Any]],
    references: tuple[str, ...],
    choices: tuple[str, ...],
    options: tuple[str, ...],
) -> _Asked:
    """Messages, references, choices and options of an item whose answer is one of several.

    Where the reference is the letter of one of the choices, or the answer is to be a letter, the choices are shown in
    the question behind letters, and those are the choices.
    """
    if len(choices) < 2 and rule.kind == "letter" and not options:
        # The question lists its options itself.
        return asked, _letters_only(references), (), ()
    if len(choices) < 2 or len(set(choices)) < len(choices) or not all(choices):
        raise ValueError("a multiple-choice item needs `choices` in its metadata: two or more different texts")
    named = letters.LETTERS[: len(choices)]
    lettered = set(choices) <= set(named)
    if rule.kind == "multiple_choice" and set(references) <= set(choices):
        return asked, references, choices, options
    texts = options if lettered else choices
    by_text = {text: named[n] for n, text in enumerate(texts)}
    found = tuple(by_text.get(reference, reference) for reference in references)
    if any(len(reference) != 1 or reference not in named for reference in found):
        raise ValueError(f"the reference {references[0]!r} is none of the choices {', '.join(choices)}")
    if not lettered:
        asked = _with_options(asked, texts)
    return asked, found, tuple(named), texts


def _letters_only(references: tuple[str, ...]) -> tuple[str, ...]:
    for reference in references:
        if len(reference) != 1 or reference not in letters.LETTERS[:10]:
            raise ValueError(
                f"the reference {reference!r} is no letter: give `choices` in the metadata, or the letter of the option"
            )
    return references


def _with_options(asked: list[dict[str, Any]], options: Sequence[str]) -> list[dict[str, Any]]:
    last = max((n for n, message in enumerate(asked) if message["role"] == "user"), default=None)
    if last is None:
        raise ValueError("there is no question that the options could stand in")
    question = asked[last]["content"]
    if letters.lists_options(question, letters.LETTERS[: len(options)]):
        return asked
    return [*asked[:last], {**asked[last], "content": letters.shown(question, options)}, *asked[last + 1 :]]
