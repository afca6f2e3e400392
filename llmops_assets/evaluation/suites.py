"""What a model is asked: items made of dataset rows, and the judgement of the answers to them."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import polars as pl

from llmops_assets.evaluation.items import NO_CATEGORY, Item, item_of
from llmops_assets.evaluation.judge import is_refusal, normalise, without_reasoning
from llmops_assets.evaluation.metrics import Estimate, clustered_wilson, macro_f1
from llmops_assets.records.conversation import TOOLS
from llmops_assets.records.evaluation import Metric
from llmops_assets.specs.suite import JudgeKind, SuiteSpec

TEST = "test"
MOST_LABELS = 26
"""Where an item of a multiple-choice suite names no choices, they are the suite's references, if there are so few."""


@dataclass(frozen=True)
class Answer:
    """What a model said to the item of that key; `tokens` counts the generated ones, `prompt_ids` is what it saw.

    For a multiple-choice item `text` is the likeliest choice, `finish_reason` is "choice", and `nll` has the nats of
    every choice.
    """

    key: str
    text: str
    tokens: int
    finish_reason: str
    token_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    nll: tuple[float, ...] = ()


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
    def judged(self) -> str:
        """The answer as a judge reads it: without what was thought before."""
        return normalise(without_reasoning(self.text))

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


@dataclass(frozen=True)
class Fault:
    """Why a row of a suite cannot be asked, and where it is."""

    file: str
    line: int
    question: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def items_of(
    frame: pl.DataFrame,
    suite: str,
    judge: JudgeKind = "exact",
    *,
    spec: SuiteSpec | None = None,
    cluster_by: str | None = None,
) -> list[Item]:
    """Items of chat rows: all turns before the assistant's last one are the prompt, that one is the reference.

    A row's metadata (`extra`) may name a `judge` of its own, more `references`, and `choices`. `spec` is how the suite
    is judged where the row says nothing; `cluster_by` the metadata field of rows that ask the same. Raises ValueError
    naming the rows (file and line) that no question can be made of, all of them at once.
    """
    items, faults = items_and_faults(frame, suite, judge, spec=spec, cluster_by=cluster_by)
    if faults:
        more = f" … and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ValueError(
            f"{len(faults)} rows of suite {suite} cannot be asked: " + "; ".join(map(str, faults[:5])) + more
        )
    if not items:
        raise ValueError(f"suite {suite} has no rows: there is nothing to evaluate on")
    return [item for item, _ in items]


Located = tuple[Item, tuple[str, int]]
"""An item with its file and line."""


def items_and_faults(
    frame: pl.DataFrame,
    suite: str,
    judge: JudgeKind = "exact",
    *,
    spec: SuiteSpec | None = None,
    cluster_by: str | None = None,
) -> tuple[list[Located], list[Fault]]:
    """The items that can be made of `frame` with where they stand, and the rows that none can be made of."""
    spec = spec or SuiteSpec(judge=judge)
    cluster_by = cluster_by or spec.cluster_by
    columns = ["row_id", "category", "messages", "extra", "file", "line"]
    rows = frame.select(*columns, *([TOOLS] if TOOLS in frame.columns else [])).to_dicts()
    labels = sorted({normalise(r["messages"][-1]["content"]) for r in rows if r["messages"]})
    labels = labels if 2 <= len(labels) <= MOST_LABELS else []
    items, faults = [], []
    for row in rows:
        try:
            items.append((item_of(row, suite, spec, cluster_by, labels), (row["file"], row["line"])))
        except ValueError as error:
            asked = next((m["content"] for m in reversed(row["messages"] or []) if m["role"] == "user"), "")
            faults.append(Fault(row["file"], row["line"], asked, str(error)))
    return items, faults


def documents_of(frame: pl.DataFrame, suite: str) -> list[Document]:
    """The documents of a corpus split."""
    rows = frame.select("row_id", "category", "text").iter_rows()
    documents = [Document(row_id, suite, category or NO_CATEGORY, text) for row_id, category, text in rows]
    if not documents:
        raise ValueError(f"suite {suite} has no documents: there is nothing to evaluate on")
    return documents


def prompts_hash(items: Iterable[Item | Document]) -> str:
    """16 hex digits that name the questions, whatever their references and their order."""
    lines = sorted(json.dumps([i.key, *_asked(i)], ensure_ascii=False, sort_keys=True) for i in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _asked(item: Item | Document) -> list[Any]:
    if isinstance(item, Document):
        return [item.text]
    return [list(item.messages), *(list(more) for more in (item.choices, item.tools) if more)]


def score(
    items: Sequence[Item],
    answers: Iterable[Answer],
    verdicts: Mapping[str, bool] | None = None,
    call_parser: str = "json",
) -> list[Scored]:
    """Judge the answers by key, in the order of the items. An item without an answer is wrong: n never shrinks.

    `verdicts` are an LLM judge's, by key; an answer without one is wrong. `call_parser` reads the model's tool calls.
    """
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
        if item.judge.kind == "llm":
            right = answer is not None and (verdicts or {}).get(item.key, False)
        else:
            right = answer is not None and item.judge.right(
                answer.text, item.references, choices=item.options, parser=call_parser
            )
        scored.append(Scored(item, answer, right))
    return scored


def accuracy(scored: Sequence[Scored]) -> Estimate:
    """The share of right answers; its interval is wider where several items ask the same (`Item.cluster`)."""
    clusters = [s.item.cluster if s.item.cluster is not None else s.item.key for s in scored]
    return clustered_wilson([s.right for s in scored], clusters)


def by_category(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Scored items by category, in the order of the categories' names."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for s in scored:
        groups[s.item.category].append(s)
    return dict(sorted(groups.items()))


def suite_metrics(scored: Sequence[Scored], suite: str, model: str) -> list[Metric]:
    """Accuracy with its interval, and macro-F1 over the references where they are labels: few, and each used again."""
    metrics = [as_metric(accuracy(scored), suite, "accuracy", model)]
    if labels_of(scored):
        estimate = macro_f1([s.item.references[0] for s in scored], [s.judged for s in scored])
        metrics.append(as_metric(estimate, suite, "macro_f1", model))
    return metrics


def labels_of(scored: Sequence[Scored]) -> list[str]:
    """The references in the order of their frequency where they are labels; none where they are free text."""
    kinds = {s.item.judge.kind for s in scored}
    counts = Counter(s.item.references[0] for s in scored)
    single = all(len(s.item.references) == 1 for s in scored)
    # Choices that are texts of their own (COPA, HellaSwag) are no classes either.
    if kinds <= {"exact", "multiple_choice", "letter"} and single and 2 <= len(counts) <= len(scored) / 2:
        return [label for label, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    return []


def confusion_matrix(scored: Sequence[Scored], most: int = 12) -> tuple[list[str], list[list[int]]] | None:
    """(labels, counts): a row an expected label, a column an answered one and a last one for any other answer.

    None where the references are no labels, or more than `most`.
    """
    labels = labels_of(scored)
    if not labels or len(labels) > most:
        return None
    at = {label: n for n, label in enumerate(labels)}
    counts = [[0] * (len(labels) + 1) for _ in labels]
    for s in scored:
        counts[at[s.item.references[0]]][at.get(s.judged, len(labels))] += 1
    return labels, counts


def as_metric(estimate: Estimate, suite: str, name: str, model: str = "tuned") -> Metric:
    """An estimate as a metric of the record: of which suite, by what name, of which model."""
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
        answered = s.judged
        if not s.right and answered in labels:
            counts[s.item.references[0], answered] += 1
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(expected, answered, count) for (expected, answered), count in ordered[:most]]
