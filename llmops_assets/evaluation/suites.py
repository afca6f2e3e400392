"""What a model is asked: items made of dataset rows, and the judgement of the answers to them."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any

import polars as pl

from llmops_assets.evaluation.judge import Judge, JudgeKind, is_refusal, normalise
from llmops_assets.evaluation.metrics import Estimate, macro_f1, wilson
from llmops_assets.specs.records import Metric

NO_CATEGORY = "(none)"
TEST = "test"


@dataclass(frozen=True)
class Item:
    """One question with the references that its answer is judged by."""

    id: str
    suite: str
    category: str
    messages: tuple[Mapping[str, str], ...]
    references: tuple[str, ...]
    judge: Judge = field(default_factory=Judge)

    @property
    def key(self) -> str:
        """Names the item among those of all suites: two suites may share a row."""
        return f"{self.suite}/{self.id}"

    @property
    def question(self) -> str:
        """The last thing the user said."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")


@dataclass(frozen=True)
class Answer:
    """What a model said to the item of that key; `tokens` counts the generated ones, `prompt_ids` is what it saw."""

    key: str
    text: str
    tokens: int
    finish_reason: str
    token_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Document:
    """A text whose likelihood is measured."""

    id: str
    suite: str
    category: str
    text: str

    @property
    def key(self) -> str:
        return f"{self.suite}/{self.id}"


@dataclass(frozen=True)
class Scored:
    """An item with its answer (None when it was lost, which counts as wrong)."""

    item: Item
    answer: Answer | None
    right: bool

    @property
    def text(self) -> str:
        return self.answer.text if self.answer else ""

    @property
    def empty(self) -> bool:
        return self.answer is not None and not normalise(self.answer.text)

    @property
    def truncated(self) -> bool:
        return self.answer is not None and self.answer.finish_reason == "length"

    @property
    def refused(self) -> bool:
        return self.answer is not None and is_refusal(self.answer.text, self.item.references)

    @property
    def state(self) -> str:
        """right, or why not, in one word."""
        if self.right:
            return "right"
        if self.answer is None:
            return "lost"
        if self.answer.finish_reason == "prompt_too_long":
            return "prompt too long"
        if self.empty:
            return "empty"
        if self.truncated:
            return "truncated"
        return "refused" if self.refused else "wrong"


def items_of(frame: pl.DataFrame, suite: str, judge: JudgeKind = "exact") -> list[Item]:
    """Items of chat rows: all turns before the assistant's last one are the prompt, that one is the reference.

    A row's metadata (`extra`) may name a `judge` of its own, and more `references`. Raises ValueError naming the rows
    (file and line) that no question can be made of, all of them at once.
    """
    items, faults = [], []
    for row in frame.select("row_id", "category", "messages", "extra", "file", "line").iter_rows(named=True):
        try:
            items.append(_item(row, suite, judge))
        except ValueError as error:
            faults.append(f"{row['file']}:{row['line']}: {error}")
    if faults:
        more = f" … and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(f"{len(faults)} rows of suite {suite} cannot be asked: " + "; ".join(faults[:5]) + more)
    if not items:
        raise ValueError(f"suite {suite} has no rows: there is nothing to evaluate on")
    return items


def _item(row: Mapping[str, Any], suite: str, judge: JudgeKind) -> Item:
    messages = row["messages"] or []
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise ValueError("the last turn must be the assistant's, after a question")
    extra = json.loads(row["extra"]) if row["extra"] else {}
    more = extra.get("references") or []
    if isinstance(more, str):
        more = [more]
    rule = Judge(extra.get("judge") or judge)
    references = tuple(normalise(str(reference)) for reference in [messages[-1]["content"], *more])
    rule.check(references)
    return Item(
        id=row["row_id"],
        suite=suite,
        category=row["category"] or NO_CATEGORY,
        messages=tuple({"role": m["role"], "content": m["content"]} for m in messages[:-1]),
        references=references,
        judge=rule,
    )


def documents_of(frame: pl.DataFrame, suite: str) -> list[Document]:
    """The documents of a corpus split."""
    rows = frame.select("row_id", "category", "text").iter_rows()
    documents = [Document(row_id, suite, category or NO_CATEGORY, text) for row_id, category, text in rows]
    if not documents:
        raise ValueError(f"suite {suite} has no documents: there is nothing to evaluate on")
    return documents


def prompts_hash(items: Iterable[Item | Document]) -> str:
    """16 hex digits that name the questions, whatever their references and their order."""
    lines = sorted(
        json.dumps([i.key, i.text if isinstance(i, Document) else list(i.messages)], ensure_ascii=False, sort_keys=True)
        for i in items
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def score(items: Sequence[Item], answers: Iterable[Answer]) -> list[Scored]:
    """Judge the answers by key, in the order of the items. An item without an answer is wrong: n never shrinks."""
    by_key: dict[str, Answer] = {}
    for answer in answers:
        if answer.key in by_key:
            raise ValueError(f"item {answer.key} was answered twice")
        by_key[answer.key] = answer
    unknown = by_key.keys() - {item.key for item in items}
    if unknown:
        raise ValueError(f"{len(unknown)} answers are to no item of the suite, for example {sorted(unknown)[0]}")
    scored = []
    for item in items:
        answer = by_key.get(item.key)
        right = answer is not None and item.judge.right(answer.text, item.references)
        scored.append(Scored(item, answer, right))
    return scored


def accuracy(scored: Sequence[Scored]) -> Estimate:
    return wilson(sum(s.right for s in scored), len(scored))


def by_category(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Scored items by category, in the order of the categories' names."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for s in scored:
        groups[s.item.category].append(s)
    return dict(sorted(groups.items()))


def suite_metrics(scored: Sequence[Scored], suite: str, model: str) -> list[Metric]:
    """Accuracy with its interval, and macro-F1 over the references where they are labels: few, and each used again."""
    metrics = [as_metric(accuracy(scored), suite, "accuracy", model)]
    labels = {s.item.references[0] for s in scored}
    exact = all(s.item.judge.kind == "exact" and len(s.item.references) == 1 for s in scored)
    if exact and 2 <= len(labels) <= len(scored) / 2:
        estimate = macro_f1([s.item.references[0] for s in scored], [normalise(s.text) for s in scored])
        metrics.append(as_metric(estimate, suite, "macro_f1", model))
    return metrics


def as_metric(estimate: Estimate, suite: str, name: str, model: str = "tuned") -> Metric:
    return Metric(
        suite=suite,
        name=name,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        model=model,
    )


def wrong_answers(scored: Sequence[Scored], most: int = 20) -> list[Scored]:
    """Up to `most` wrong answers, taken in turn from the categories, so that no category hides another."""
    groups = [[s for s in group if not s.right] for group in by_category(scored).values()]
    in_turn = chain.from_iterable(zip_longest(*groups))
    return [s for s in in_turn if s is not None][:most]


def confusions(scored: Sequence[Scored], most: int = 15) -> list[tuple[str, str, int]]:
    """The most frequent (expected, answered, count) of wrong answers that are the right answer to something else."""
    labels = {s.item.references[0] for s in scored}
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for s in scored:
        said = normalise(s.text)
        if not s.right and said in labels:
            counts[s.item.references[0], said] += 1
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(expected, said, count) for (expected, said), count in ordered[:most]]
