"""Evaluates one trained model: asks it and its base the same items, and makes the record of it."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from llmops_assets.evaluation import metrics as m
from llmops_assets.evaluation.answers import Likelihood, Model, Worker, ask, has_chat_template, measure
from llmops_assets.evaluation.judge import JudgeKind
from llmops_assets.evaluation.suites import (
    TEST,
    Document,
    Item,
    Scored,
    accuracy,
    as_metric,
    by_category,
    documents_of,
    items_of,
    score,
    suite_metrics,
)
from llmops_assets.specs.records import EvaluationRecord, Metric
from llmops_assets.specs.training import TrainJobSpec

CHAT_TYPES = ("sft_pair", "eval_suite")


@dataclass(frozen=True)
class Identity:
    """Which training is evaluated."""

    dataset: str
    recipe: str
    training_key: str


@dataclass(frozen=True)
class ChatEvaluation:
    """Judged answers by suite, of the model and (where there is one to ask) of its base."""

    tuned: dict[str, list[Scored]]
    base: dict[str, list[Scored]]
    baseline: str
    settings: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class CorpusEvaluation:
    """The likelihood of the held-out documents."""

    documents: list[Document]
    likelihoods: list[Likelihood]
    settings: dict[str, Any]
    seconds: float

    def pairs(self) -> list[tuple[Document, Likelihood]]:
        return list(zip(self.documents, self.likelihoods, strict=True))


def chat_suites(
    spec: TrainJobSpec, test: tuple[str, pl.DataFrame], suites: Mapping[str, tuple[str, pl.DataFrame]]
) -> dict[str, list[Item]]:
    """The items of a job's own test split and of its suites; each comes as (dataset type, rows).

    A test split that is no conversation is left out where there are suites to ask instead, and refused where not.
    """
    judge: JudgeKind = spec.evaluation.judge
    chosen = {}
    if test[0] in CHAT_TYPES:
        chosen[TEST] = items_of(test[1], TEST, judge)
    elif not suites:
        raise ValueError(
            f"the test split of {spec.dataset_ref} is of type {test[0]}, whose answers no judge here can decide: name "
            "eval_suite datasets under evaluation.suites of the recipe"
        )
    for name, (kind, frame) in suites.items():
        if kind not in CHAT_TYPES:
            raise ValueError(f"suite {name} is of type {kind}: register it as an eval_suite")
        chosen[name] = items_of(frame, name, judge)
    return chosen


def evaluate_chat(
    worker: Worker,
    context: Any | None,
    tuned: Model,
    base: Model | None,
    suites: Mapping[str, Sequence[Item]],
    cache: Path,
    *,
    max_new_tokens: int,
    batch_size: int,
    seed: int = 0,
) -> ChatEvaluation:
    """Ask the model, and its base where it has a chat template, every item of every suite, and judge the answers."""
    items = [item for suite in suites.values() for item in suite]
    settings = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "seed": seed}
    answers, result = ask(worker, context, tuned, items, cache, **settings)
    told = {"tuned": _told(result)}
    seconds = result["seconds"]
    scored_base: dict[str, list[Scored]] = {}
    if base is None:
        baseline = "There is no base: the model was made from nothing"
    elif not has_chat_template(base.path):
        baseline = f"The base was not asked: its tokenizer in {base.path} has no chat template"
    else:
        base_answers, base_result = ask(worker, context, base, items, cache, **settings)
        told["base"] = _told(base_result)
        seconds += base_result["seconds"]
        scored_base = _by_suite(score(items, base_answers))
        baseline = f"Compared with the base in {base.path} on the same items"
    return ChatEvaluation(_by_suite(score(items, answers)), scored_base, baseline, told, seconds)


def evaluate_corpus(
    worker: Worker, context: Any | None, tuned: Model, test: pl.DataFrame, cache: Path
) -> CorpusEvaluation:
    """Measure the likelihood of every held-out document."""
    documents = documents_of(test, TEST)
    likelihoods, result = measure(worker, context, tuned, documents, cache)
    if [x.key for x in likelihoods] != [d.key for d in documents]:
        raise RuntimeError(f"{len(documents)} documents were to be scored, but {len(likelihoods)} came back")
    return CorpusEvaluation(documents, likelihoods, {"tuned": _told(result)}, result["seconds"])


def chat_record(identity: Identity, model_hash: str, evaluation: ChatEvaluation, answers: Path) -> EvaluationRecord:
    """What the evaluation says, in figures. `answers` is where the answers are written."""
    figures: list[Metric] = []
    for name, group in (("tuned", evaluation.tuned), ("base", evaluation.base)):
        for suite, scored in group.items():
            figures += suite_metrics(scored, suite, name)
    headline = evaluation.tuned.get(TEST) or next(iter(evaluation.tuned.values()))
    suite_of_categories = headline[0].item.suite
    every = [s for scored in evaluation.tuned.values() for s in scored]
    return EvaluationRecord(
        dataset=identity.dataset,
        recipe=identity.recipe,
        training_key=identity.training_key,
        model_hash=model_hash,
        metrics=figures,
        empty_answers=sum(s.empty for s in every),
        length_truncated=sum(s.truncated for s in every),
        refusals=sum(s.refused for s in every),
        by_category={
            category: as_metric(accuracy(group), suite_of_categories, "accuracy")
            for category, group in by_category(headline).items()
        },
        answers=str(answers),
        seconds=evaluation.seconds,
        items={suite: len(scored) for suite, scored in evaluation.tuned.items()},
        answered={suite: sum(s.answer is not None for s in scored) for suite, scored in evaluation.tuned.items()},
        baseline=evaluation.baseline,
        versus_base={
            suite: _compare(scored, evaluation.base[suite])
            for suite, scored in evaluation.tuned.items()
            if suite in evaluation.base
        },
        settings=evaluation.settings,
    )


def corpus_record(identity: Identity, model_hash: str, evaluation: CorpusEvaluation, answers: Path) -> EvaluationRecord:
    """The same for a pre-trained model: perplexity and bits per byte of the held-out documents, no accuracy."""
    groups: dict[str, list[Likelihood]] = defaultdict(list)
    for document, likelihood in evaluation.pairs():
        groups[document.category].append(likelihood)
    every = evaluation.likelihoods
    vocabulary = evaluation.settings["tuned"].get("vocabulary")
    return EvaluationRecord(
        dataset=identity.dataset,
        recipe=identity.recipe,
        training_key=identity.training_key,
        model_hash=model_hash,
        metrics=[
            as_metric(m.perplexity([x.nll for x in every], [x.tokens for x in every]), TEST, "perplexity"),
            as_metric(m.bits_per_byte([x.nll for x in every], [x.bytes for x in every]), TEST, "bits_per_byte"),
        ],
        empty_answers=0,
        length_truncated=0,
        by_category={
            category: as_metric(m.perplexity([x.nll for x in group], [x.tokens for x in group]), TEST, "perplexity")
            for category, group in sorted(groups.items())
            if any(x.tokens for x in group)
        },
        answers=str(answers),
        seconds=evaluation.seconds,
        items={TEST: len(evaluation.documents)},
        answered={TEST: len(every)},
        baseline=f"Guessing at random among the {vocabulary} entries of the vocabulary has perplexity {vocabulary}",
        settings=evaluation.settings,
    )


def chat_rows(evaluation: ChatEvaluation) -> list[dict[str, Any]]:
    """One row an item, as the answers file has them."""
    rows = []
    for suite, scored in evaluation.tuned.items():
        base = evaluation.base.get(suite)
        for number, s in enumerate(scored):
            row = {
                "id": s.item.id,
                "suite": suite,
                "category": s.item.category,
                "prompt": s.item.question,
                "expected": s.item.references[0],
                "got": s.text,
                "correct": s.right,
                "state": s.state,
                "tokens": s.answer.tokens if s.answer else None,
                "finish_reason": s.answer.finish_reason if s.answer else None,
                # What a server that runs the same model has to see and say too.
                "token_ids": list(s.answer.token_ids) if s.answer else [],
                "prompt_ids": list(s.answer.prompt_ids) if s.answer else [],
            }
            if base is not None:
                row |= {"base_got": base[number].text, "base_correct": base[number].right}
            rows.append(row)
    return rows


def corpus_rows(evaluation: CorpusEvaluation) -> list[dict[str, Any]]:
    """One row a document, as the answers file of a pre-trained model has them."""
    return [
        {
            "id": document.id,
            "suite": document.suite,
            "category": document.category,
            "prompt": document.text[:500],
            "nll": likelihood.nll,
            "tokens": likelihood.tokens,
            "bytes": likelihood.bytes,
            "perplexity": m.perplexity_of(likelihood.nll, likelihood.tokens),
        }
        for document, likelihood in evaluation.pairs()
    ]


def record_hash(record: EvaluationRecord, rows: Sequence[Mapping[str, Any]]) -> str:
    """16 hex digits of what was measured: the same model on the same items gives the same, however long it took."""
    facts = [record.model_hash, [x.model_dump(mode="json") for x in record.metrics], list(rows)]
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _told(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **result["settings"],
        "tokens_per_second": round(result["tokens_per_second"], 1),
        "seconds": round(result["seconds"], 2),
    }


def _by_suite(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for s in scored:
        groups.setdefault(s.item.suite, []).append(s)
    return groups


def _compare(tuned: Sequence[Scored], base: Sequence[Scored]) -> dict[str, float]:
    test = m.mcnemar([s.right for s in tuned], [s.right for s in base])
    return {
        "only_tuned": test.only_first,
        "only_base": test.only_second,
        "both": test.both,
        "neither": test.neither,
        "p": test.p,
    }
