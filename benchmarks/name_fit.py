"""Fits the weights of names to labelled sentences, and says how they do on sentences that they were not fitted to.

Two models, one after the other, as `names` asks them: whether a sentence has evidence of a name (`name_evidence`), and
which spans of it are names: a semi-Markov conditional random field over the features of `name_sentence` and
`name_words`, in which spans that compete for a place (a first name, the full name) are weighed against one another. No
feature is a word of the sentences: what is kept (`name_weights.json`) are a few hundred numbers. News and reviews hold
no messages to a service, in which people say who they are: sentences of our own (`chat_names.txt`, names in brackets)
are fitted to as well, and never counted.

A fifth of the labelled sentences is locked away by a hash of their text. Nobody looks at them: no feature, list,
penalty or threshold may be chosen by them, and they are scored once it all stands (`--locked`).
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llmops_assets.privacy.name_evidence import Evidence, parts_of_words
from llmops_assets.privacy.name_sentence import Bounds, Sentence
from llmops_assets.privacy.name_weights import PATH, Lattice, choose, evidence_weights, features, logit, total, weights
from llmops_assets.privacy.name_words import LOCK, Features
from llmops_assets.privacy.names import analysed

FOLDS = 5
_STRENGTH = 0.7
"""Inverse of the L2 penalty."""
_RARE = 5
"""Candidates that must have a feature for it to get a weight."""


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def is_locked(text: str) -> bool:
    """Whether a sentence is of the fifth that nothing is chosen by."""
    return _hash(text) % 5 == 4


@dataclass(frozen=True)
class Spans:
    """Spans of one sentence that may be names, their features, and those that are."""

    candidates: list[Bounds]
    features: list[Features]
    names: list[Bounds]


@dataclass(frozen=True)
class Weights:
    """Weight by feature of each model."""

    spans: dict[str, float]
    words: dict[str, float]

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.words, *evidence_weights()[1:])


@dataclass(frozen=True)
class Labelled:
    """A sentence and where its names are; the fold is a hash of its text, the same in every run."""

    text: str
    names: list[Bounds]

    @property
    def fold(self) -> int:
        return _hash(self.text) // 5 % FOLDS


def _words(row: Labelled) -> Spans:
    """Parts of words for `name_evidence`: of a name of several words each word is one here."""
    parts = [
        (start + word.start(), start + word.end())
        for start, end in row.names
        for word in re.finditer(r"\S+", row.text[start:end])
    ]
    found = parts_of_words(row.text)
    return Spans([span for span, _ in found], [each for _, each in found], parts)


def _sentences(rows: list[Labelled], evidence: Evidence) -> list[tuple[Sentence, Spans]]:
    """The candidates of each sentence, where this evidence has them looked for."""
    places = [evidence.places(row.text) for row in rows]
    found = []
    for row, sentence in zip(rows, analysed([row.text for row in rows], places), strict=True):
        candidates = sentence.candidates()
        each = [features(sentence, start, end) for start, end in candidates]
        found.append((sentence, Spans(candidates, each, row.names)))
    return found


@cache
def _chat() -> list[Labelled]:
    """Our own sentences."""
    found = []
    for line in Path(__file__).with_name("chat_names.txt").read_text(encoding="utf-8").splitlines():
        pieces = re.split(r"[\[\]]", line)
        ends = [sum(map(len, pieces[: number + 1])) for number in range(len(pieces))]
        names = [(ends[number] - len(pieces[number]), ends[number]) for number in range(1, len(pieces), 2)]
        found.append(Labelled("".join(pieces), names))
    return found


def fit(rows: Iterable[Labelled]) -> Weights:
    """Weights that are fitted to these sentences and our own."""
    rows = [*rows, *_chat()]
    with LOCK:
        words = _fitted([_words(row) for row in rows])
        evidence = Weights({}, words).evidence
        return Weights(_fitted([spans for _, spans in _sentences(rows, evidence)]), words)


def _fitted(rows: Sequence[Spans]) -> dict[str, float]:
    """A weight for each feature that is not rare."""
    from scipy.optimize import minimize
    from sklearn.feature_extraction import DictVectorizer

    every = [found for row in rows for found in row.features]
    often = Counter(name for found in every for name, value in found.items() if value)
    kept = {name for name, count in often.items() if count >= _RARE}
    vectorizer = DictVectorizer()
    x = vectorizer.fit_transform([{name: found[name] for name in found.keys() & kept} for found in every])
    x = x.tocsr()
    names = x.T @ np.array([float(candidate in row.names) for row in rows for candidate in row.candidates])
    lattices = [(Lattice(row.candidates), len(row.candidates)) for row in rows]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores, at, total, likely = (x @ weights).tolist(), 0, 0.0, []
        for lattice, count in lattices:
            every, share = lattice.chances(scores[at : at + count])
            total, at = total + every, at + count
            likely += share
        value = _STRENGTH * (total - names @ weights) + weights @ weights / 2
        return float(value), _STRENGTH * (x.T @ np.array(likely) - names) + weights

    # Convex: from zero it comes to the same weights as from anywhere.
    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return {
        str(name): round(float(weight), 3)
        for name, weight in zip(vectorizer.get_feature_names_out(), found.x, strict=True)
    }


Odds = list[tuple[float, Bounds]]


class Judged(NamedTuple):
    """A sentence and the log odds of its candidates."""

    sentence: Sentence
    odds: Odds


def judged(rows: list[Labelled], fitted: Weights) -> list[Judged]:
    """Each sentence by these weights."""
    found = []
    with LOCK:
        for sentence, spans in _sentences(rows, fitted.evidence):
            _, likely = Lattice(spans.candidates).chances([total(each, fitted.spans) for each in spans.features])
            odds = [(logit(share), span) for share, span in zip(likely, spans.candidates, strict=True)]
            found.append(Judged(sentence, odds))
    return found


def held_out(rows: list[Labelled]) -> list[Judged]:
    """Each sentence by weights that were fitted to the other folds."""
    found: dict[str, Judged] = {}
    for fold in range(FOLDS):
        inside = [row for row in rows if row.fold == fold]
        for row, one in zip(inside, judged(inside, fit(row for row in rows if row.fold != fold)), strict=True):
            found[row.text] = one
    return [found[row.text] for row in rows]


def chosen(rows: list[Judged], enough: float) -> list[list[Bounds]]:
    """The names of each sentence."""
    return [[span for _, span in choose(row.sentence, row.odds, enough)] for row in rows]


def write(fitted: Weights) -> None:
    """Keeps the weights where `names.find_names` reads them; what is enough stays as it is there."""
    _, enough, near = evidence_weights()
    content = {
        "made by": "python -m benchmarks.names --fit",
        "enough": weights()[1],
        "weights": dict(sorted(fitted.spans.items())),
        "evidence": {"enough": enough, "near": near, "weights": dict(sorted(fitted.words.items()))},
    }
    PATH.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
