"""Evaluates a pre-trained model: the likelihood of held-out documents, and suites of choices that need no chat."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.evaluation import chat
from llmops_assets.evaluation import metrics as m
from llmops_assets.evaluation.answers import Likelihood, measure
from llmops_assets.evaluation.case import Case, ErrorAnalysis, Evaluated, Identity, worker_settings
from llmops_assets.evaluation.suites import TEST, Document, as_metric, documents_of
from llmops_assets.records.evaluation import EvaluationRecord

WORST = 20


@dataclass(frozen=True)
class CorpusEvaluation:
    """The likelihood of the held-out documents."""

    documents: list[Document]
    likelihoods: list[Likelihood]
    settings: dict[str, Any]
    seconds: float

    def pairs(self) -> list[tuple[Document, Likelihood]]:
        return list(zip(self.documents, self.likelihoods, strict=True))


def evaluate(case: Case) -> Evaluated:
    """Perplexity and bits per byte of the test split, and the suites that need no conversation."""
    result = evaluate_corpus(case)
    record = corpus_record(case.identity, case.tuned.content_hash, result, case.answers)
    rows, worst = corpus_rows(result), least_likely(result)
    if not case.suites:
        return Evaluated(record, rows, worst)
    suites = chat.chat_suites(case.spec, case.test, case.suites)
    chosen = {name: items for name, items in suites.items() if all(item.choices for item in items)}
    if skipped := [name for name in suites if name not in chosen]:
        note = f"It was not asked {', '.join(skipped)}: a pre-trained model answers no questions, it ranks choices"
        record = record.model_copy(update={"baseline": f"{record.baseline}. {note}"})
    if len(skipped) == len(case.suites):
        return Evaluated(record, rows, worst)
    asked = chat.evaluate_chat(case, chosen)
    also = chat.chat_record(case, asked)
    record = record.model_copy(
        update={
            "metrics": [*record.metrics, *also.metrics],
            "items": record.items | also.items,
            "answered": record.answered | also.answered,
            "general": also.general,
            "judges": also.judges,
            "seconds": record.seconds + also.seconds,
            "settings": record.settings | {"suites": also.settings["tuned"]},
        }
    )
    return Evaluated(record, [*rows, *chat.chat_rows(asked)], worst)


def evaluate_corpus(case: Case) -> CorpusEvaluation:
    """Measure the likelihood of every held-out document."""
    documents = documents_of(case.test.frame, TEST)
    likelihoods, result = measure(case.worker, case.context, case.tuned, documents, case.cache)
    if [x.key for x in likelihoods] != [d.key for d in documents]:
        raise RuntimeError(f"{len(documents)} documents were to be scored, but {len(likelihoods)} came back")
    return CorpusEvaluation(documents, likelihoods, {"tuned": worker_settings(result)}, result["seconds"])


def least_likely(evaluation: CorpusEvaluation, most: int = WORST) -> ErrorAnalysis:
    """The documents that the model finds least likely."""
    pairs = [(d, x) for d, x in evaluation.pairs() if x.tokens]
    pairs.sort(key=lambda pair: -pair[1].nll / pair[1].tokens)
    return ErrorAnalysis(
        "The least likely documents",
        ("category", "perplexity", "tokens", "text"),
        [(d.category, f"{m.perplexity_of(x.nll, x.tokens):.1f}", str(x.tokens), d.text[:300]) for d, x in pairs[:most]],
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
