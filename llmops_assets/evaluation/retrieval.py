"""Evaluates an encoder: how far forward it puts the passages that belong to a query, beside the untrained one."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from llmops_assets.evaluation import metrics as m
from llmops_assets.evaluation.answers import Model, kept
from llmops_assets.evaluation.case import Case, ErrorAnalysis, Evaluated, worker_settings
from llmops_assets.evaluation.differences import paired, versus_base
from llmops_assets.evaluation.suites import NO_CATEGORY, TEST, as_metric
from llmops_assets.records.evaluation import Difference, EvaluationRecord, Metric
from llmops_assets.records.jobs import RetrieveJob
from llmops_assets.specs.jobs import ALIKE

DEPTH = 10
WORST = 20


@dataclass(frozen=True)
class Query:
    """A query with the keys of the passages that belong to it."""

    id: str
    text: str
    category: str
    relevant: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What an encoder found for a query: ranks of its own passages, from 1, and the nearest ones."""

    query: Query
    ranks: tuple[int, ...]
    nearest: tuple[str, ...]
    scores: tuple[float, ...]

    def recall(self, depth: int) -> float:
        """Share of its passages among the first `depth`; of more than `depth` ones, of as many as can be there."""
        return sum(rank <= depth for rank in self.ranks) / min(depth, len(self.ranks))

    def reciprocal(self, depth: int = DEPTH) -> float:
        """1 / rank of the first of its passages, 0 beyond `depth`."""
        return 1 / self.ranks[0] if self.ranks[0] <= depth else 0.0

    def ndcg(self, depth: int = DEPTH) -> float:
        """Normalised discounted cumulative gain with gains of 0 and 1 (Järvelin and Kekäläinen 2002)."""
        gained = sum(1 / math.log2(rank + 1) for rank in self.ranks if rank <= depth)
        return gained / sum(1 / math.log2(at + 2) for at in range(min(depth, len(self.ranks))))


def passage_key(text: str) -> str:
    """Names a passage, whatever white space stands around it."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def queries_of(frame: pl.DataFrame, column: str) -> tuple[list[Query], dict[str, str]]:
    """The queries of a split (`column` holds them) that have a passage, and all its passages by key.

    A query that stands in several rows has the passages of all of them. Raises ValueError where nothing can be told.
    """
    passages: dict[str, str] = {}
    own: dict[str, list[str]] = {}
    first: dict[str, tuple[str, str]] = {}
    frame = frame if "score" in frame.columns else frame.with_columns(score=pl.lit(None, pl.Float64))
    columns = ["row_id", "category", column, "positives", "negatives", "score"]
    for row_id, category, text, positives, negatives, score in frame.select(columns).iter_rows():
        if score is not None and score < ALIKE:
            # Two texts that are less alike don't belong together: the other one is a passage among all.
            positives, negatives = [], [*positives, *negatives]
        passages.update((passage_key(passage), passage) for passage in (*positives, *negatives))
        if positives:
            own.setdefault(text.strip(), []).extend(passage_key(passage) for passage in positives)
            first.setdefault(text.strip(), (row_id, category or NO_CATEGORY))
    found = [Query(*first[text][:1], text, first[text][1], tuple(dict.fromkeys(keys))) for text, keys in own.items()]
    if not found:
        raise ValueError("no row of the test split has a passage that belongs to it: there is nothing to find")
    return found, passages


def check_corpus(passages: Mapping[str, str], depth: int = DEPTH) -> None:
    """Raise ValueError where every order of the passages would be a good one."""
    if len(passages) <= depth:
        raise ValueError(
            f"the corpus has {len(passages)} passages, so all of them are among the first {depth} and recall says "
            "nothing: register a version with more passages in its test split"
        )


def search(
    case: Case,
    model: Model,
    queries: Sequence[Query],
    passages: Mapping[str, str],
    *,
    top_k: int = DEPTH,
    max_length: int | None = None,
) -> tuple[list[Found], dict[str, Any]]:
    """What `model` finds for each query, with the worker's result; kept like answers are."""
    block = case.spec.embedding
    rows: list[dict[str, Any]] = [
        {"id": f"query/{q.id}", "kind": "query", "text": q.text, "relevant": q.relevant} for q in queries
    ]
    rows += [{"id": key, "kind": "passage", "text": text, "relevant": ()} for key, text in passages.items()]
    settings = {
        "query_prompt": block.query_prompt if block else "",
        "passage_prompt": block.passage_prompt if block else "",
        "pooling": case.pooling,
        "max_length": max_length or case.spec.hyperparams.max_seq_len,
        "top_k": top_k,
    }
    text = json.dumps([{"task": "retrieve", **settings}, rows], ensure_ascii=False, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    output, result = kept(
        case.worker, case.context, model, RetrieveJob, settings, {"top_k": top_k}, rows, digest, case.cache
    )
    by_id = {row["id"]: row for row in output}
    found = [
        Found(q, tuple(row["ranks"]), tuple(row["found"]), tuple(row["scores"]))
        for q in queries
        for row in [by_id[f"query/{q.id}"]]
    ]
    return found, result


def retrieval_metrics(
    found: Sequence[Found], suite: str, model: str, depths: Sequence[int] = (1, DEPTH)
) -> list[Metric]:
    """Recall at each depth, mean reciprocal rank and nDCG, each with its interval over the queries."""
    figures = {f"recall_at_{depth}": [f.recall(depth) for f in found] for depth in depths}
    figures |= {"mrr_at_10": [f.reciprocal() for f in found], "ndcg_at_10": [f.ndcg() for f in found]}
    return [as_metric(mean(values), suite, name, model) for name, values in figures.items()]


def mean(values: Sequence[float]) -> m.Estimate:
    """The mean of values in 0..1: of shares that are 0 or 1 with Wilson's interval, else with a bootstrap's."""
    if all(value in (0.0, 1.0) for value in values):
        return m.wilson(int(sum(values)), len(values))
    return m.bootstrap(lambda index: float(sum(values[i] for i in index) / len(index)), len(values))


def evaluate(case: Case) -> Evaluated:
    """Recall, MRR and nDCG on the test split's own passages, beside those of the untrained encoder."""
    queries, passages = queries_of(case.test.frame, "anchor")
    check_corpus(passages)
    found: dict[str, list[Found]] = {}
    settings, seconds = {}, 0.0
    for name, model in {"tuned": case.tuned, **{baseline.name: baseline.model for baseline in case.baselines}}.items():
        found[name], result = search(case, model, queries, passages)
        settings[name] = worker_settings(result) | {"model_hash": model.content_hash}
        seconds += result["seconds"]
    figures = [metric for name, hits in found.items() for metric in retrieval_metrics(hits, TEST, name)]
    groups: dict[str, list[Found]] = defaultdict(list)
    for hit in found["tuned"]:
        groups[hit.query.category].append(hit)
    differences = [
        difference(TEST, name, settings[name]["model_hash"], found["tuned"], hits)
        for name, hits in found.items()
        if name != "tuned"
    ]
    guessing = min(1.0, DEPTH / len(passages))
    record = EvaluationRecord(
        dataset=case.identity.dataset,
        recipe=case.identity.recipe,
        training_key=case.identity.training_key,
        model_hash=case.tuned.content_hash,
        metrics=figures,
        empty_answers=0,
        length_truncated=0,
        by_category={
            category: as_metric(mean([f.recall(DEPTH) for f in hits]), TEST, "recall_at_10")
            for category, hits in sorted(groups.items())
        },
        answers=str(case.answers),
        seconds=seconds,
        items={TEST: len(queries)},
        answered={TEST: len(found["tuned"])},
        baseline=f"{len(queries)} queries over {len(passages)} passages; guessing has recall_at_10 {guessing:.3f}",
        versus_base=versus_base(differences),
        differences=differences,
        settings=settings,
    )
    return Evaluated(record, rows_of(found["tuned"], passages, TEST), worst_of(found["tuned"], passages))


def difference(suite: str, against: str, ref: str, tuned: Sequence[Found], other: Sequence[Found]) -> Difference:
    """Two encoders on the same queries: at how many only one of them has a passage among the first ten."""
    return paired(
        suite,
        against,
        ref,
        [f.ranks[0] <= DEPTH for f in tuned],
        [f.ranks[0] <= DEPTH for f in other],
        changed=sum(a.nearest != b.nearest for a, b in zip(tuned, other, strict=True)),
    )


def rows_of(found: Sequence[Found], passages: Mapping[str, str], suite: str) -> list[dict[str, Any]]:
    """One row a query, as the answers file has them."""
    return [
        {
            "id": hit.query.id,
            "suite": suite,
            "category": hit.query.category,
            "prompt": hit.query.text,
            "expected": passages[hit.query.relevant[0]],
            "got": passages[hit.nearest[0]],
            "correct": hit.ranks[0] <= DEPTH,
            "state": "right" if hit.ranks[0] <= DEPTH else "not found",
            "ranks": list(hit.ranks),
            "score": hit.scores[0],
        }
        for hit in found
    ]


def worst_of(found: Sequence[Found], passages: Mapping[str, str], most: int = WORST) -> ErrorAnalysis:
    """The queries whose passage stands farthest behind."""
    missed = sorted((hit for hit in found if hit.ranks[0] > 1), key=lambda hit: -hit.ranks[0])
    title = f"{min(most, len(missed))} of {len(missed)} queries whose passage is not the nearest"
    return ErrorAnalysis(
        title if missed else "Every passage is the nearest to its query",
        ("category", "query", "its passage", "rank", "the nearest"),
        [
            (h.query.category, h.query.text, passages[h.query.relevant[0]], str(h.ranks[0]), passages[h.nearest[0]])
            for h in missed[:most]
        ],
    )
