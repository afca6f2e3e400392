"""Scores of free texts against their references: BLEU, chrF, ROUGE, BERTScore and F1 of entities, with intervals.

Everything is NFC first: decomposed Hangul (NFD) looks the same and scores next to nothing (chrF 1.02 of 100). BLEU and
chrF are 0..100 as sacrebleu gives them; ROUGE, BERTScore and F1 are 0..1 as in their papers.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from llmops_assets.evaluation.judge import normalise
from llmops_assets.evaluation.metrics import Estimate

RESAMPLES = 500


def bleu(answers: Sequence[str], references: Sequence[Sequence[str]], *, seed: int = 0) -> Estimate:
    """Corpus BLEU (Post 2018) over the words and particles of mecab-ko: sacrebleu's `tok:ko-mecab`."""
    from sacrebleu.metrics import BLEU

    return _sacrebleu(BLEU(tokenize="ko-mecab"), answers, references, seed)


def chrf(answers: Sequence[str], references: Sequence[Sequence[str]], *, seed: int = 0) -> Estimate:
    """Corpus chrF2 (Popović 2015) over characters, which needs no tokenizer."""
    from sacrebleu.metrics import CHRF

    return _sacrebleu(CHRF(), answers, references, seed)


def _sacrebleu(metric: Any, answers: Sequence[str], references: Sequence[Sequence[str]], seed: int) -> Estimate:
    """A sacrebleu metric with the percentile bootstrap interval over items.

    The statistics of the items add up to those of a corpus, so a resample is a sum of rows.
    """
    answers = [normalise(text) for text in answers]
    most = max(len(group) for group in references)
    # sacrebleu takes a list for each rank of reference; None where an item has no more.
    streams = [[normalise(group[rank]) if rank < len(group) else None for group in references] for rank in range(most)]
    statistics = np.array(metric._extract_corpus_statistics(answers, streams), dtype=float)

    def total(weights: np.ndarray) -> float:
        return float(metric._compute_score_from_stats((weights @ statistics).tolist()).score)

    return _resampled(total, len(answers), seed)


def _resampled(total: Callable[[np.ndarray], float], n: int, seed: int) -> Estimate:
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
    low, high = np.percentile([total(weights) for weights in drawn], [2.5, 97.5])
    return Estimate(total(np.ones(n)), float(low), float(high), n)


def mean(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean of a score an item, with its bootstrap interval."""
    scores = np.asarray(values, dtype=float)
    return _resampled(lambda weights: float(weights @ scores / weights.sum()), len(scores), seed)


@cache
def _kiwi() -> Any:
    from kiwipiepy import Kiwi

    return Kiwi()


def morphemes(text: str) -> list[str]:
    """The morphemes of a text (kiwi), lower case; other scripts and numbers stay words.

    rouge-score's own tokenizer drops everything that is not ASCII: identical Korean scores 0.
    """
    return [token.form.lower() for token in _kiwi().tokenize(normalise(text))]


def rouge_items(answers: Sequence[str], references: Sequence[Sequence[str]], kind: str) -> list[float]:
    """ROUGE F1 (Lin 2004) of every item over morphemes: `kind` is rouge1, rouge2 or rouge_l; the best of references."""
    measure = {"rouge1": lambda a, b: _overlap(a, b, 1), "rouge2": lambda a, b: _overlap(a, b, 2), "rouge_l": _lcs}[
        kind
    ]
    known: dict[str, list[str]] = {}

    def tokens(text: str) -> list[str]:
        if text not in known:
            known[text] = morphemes(text)
        return known[text]

    return [
        max(measure(tokens(answer), tokens(reference)) for reference in group)
        for answer, group in zip(answers, references, strict=True)
    ]


def rouge(answers: Sequence[str], references: Sequence[Sequence[str]], kind: str, *, seed: int = 0) -> Estimate:
    """The mean of `rouge_items`."""
    return mean(rouge_items(answers, references, kind), seed=seed)


def _f1(common: float, answered: int, wanted: int) -> float:
    return 2 * common / (answered + wanted) if answered + wanted else 0.0


def _overlap(answer: Sequence[str], wanted: Sequence[str], n: int) -> float:
    a, b = (Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for tokens in (answer, wanted))
    return _f1(sum((a & b).values()), sum(a.values()), sum(b.values()))


def _lcs(answer: Sequence[str], wanted: Sequence[str]) -> float:
    row = [0] * (len(wanted) + 1)
    for token in answer:
        diagonal = 0
        for j, other in enumerate(wanted, 1):
            diagonal, row[j] = row[j], diagonal + 1 if token == other else max(row[j], row[j - 1])
    return _f1(row[-1], len(answer), len(wanted))


def entity_f1(answers: Sequence[str], references: Sequence[str], nothing: str = "없음", *, seed: int = 0) -> Estimate:
    """Micro-F1 of entities written as ``text:KIND; text:KIND``; 0..1."""
    counts = []
    for answer, reference in zip(answers, references, strict=True):
        a, b = _entities(answer, nothing), _entities(reference, nothing)
        counts.append((sum((a & b).values()), sum(a.values()), sum(b.values())))
    table = np.array(counts, dtype=float)

    def total(weights: np.ndarray) -> float:
        common, found, wanted = weights @ table
        return float(2 * common / (found + wanted)) if found + wanted else 1.0

    return _resampled(total, len(counts), seed)


def _entities(text: str, nothing: str) -> Counter[str]:
    parts = (part.strip() for part in normalise(text).split(";"))
    return Counter(part for part in parts if part and part != nothing)
