"""Fits the weights of names to labelled sentences, and says how they do on sentences that they were not fitted to.

A semi-Markov conditional random field over the features of `name_sentence` and `name_words`: spans that compete for a
place (a first name, the full name) are weighed against one another. No feature is a word of the sentences: what is kept
(`name_weights.json`) are a few hundred numbers. News and reviews hold no messages to a service, in which people say who
they are: sentences of our own (`chat_names.txt`, names in brackets) are fitted to as well, and never counted.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from llmops_assets.privacy.name_sentence import Bounds, Sentence
from llmops_assets.privacy.name_weights import PATH, Lattice, choose, features, logit
from llmops_assets.privacy.name_words import LOCK, Features
from llmops_assets.privacy.names import analysed

FOLDS = 5
_STRENGTH = 0.7
"""Inverse of the L2 penalty."""
_RARE = 5
"""Candidates that must have a feature for it to get a weight."""


@dataclass(frozen=True)
class Labelled:
    """A sentence, where its names are, and the features of its candidates."""

    sentence: Sentence
    names: list[Bounds]
    candidates: list[Bounds]
    features: list[Features]
    fold: int


def labelled(texts: list[str], names: list[list[Bounds]]) -> list[Labelled]:
    """Sentences with their features; the fold is a hash of the sentence, the same in every run."""
    found = []
    with LOCK:
        for sentence, spans in zip(analysed(texts), names, strict=True):
            candidates = sentence.candidates()
            fold = int(hashlib.sha256(sentence.text.encode()).hexdigest(), 16) % FOLDS
            found.append(Labelled(sentence, spans, candidates, [features(sentence, a, b) for a, b in candidates], fold))
    return found


@cache
def _chat() -> list[Labelled]:
    """Our own sentences."""
    texts, names = [], []
    for line in Path(__file__).with_name("chat_names.txt").read_text(encoding="utf-8").splitlines():
        pieces = re.split(r"[\[\]]", line)
        ends = [sum(map(len, pieces[: number + 1])) for number in range(len(pieces))]
        texts.append("".join(pieces))
        names.append([(ends[number] - len(pieces[number]), ends[number]) for number in range(1, len(pieces), 2)])
    return labelled(texts, names)


def fit(rows: list[Labelled]) -> dict[str, float]:
    """A weight for each feature that is not rare."""
    from scipy.optimize import minimize
    from sklearn.feature_extraction import DictVectorizer

    rows = rows + _chat()
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


def judged(rows: list[Labelled], weights: dict[str, float]) -> list[Odds]:
    """Log odds of the candidates of each sentence."""
    judged = []
    for row in rows:
        scores = [sum(weights.get(name, 0.0) * value for name, value in found.items()) for found in row.features]
        _, likely = Lattice(row.candidates).chances(scores)
        judged.append([(logit(share), span) for share, span in zip(likely, row.candidates, strict=True)])
    return judged


def held_out(rows: list[Labelled]) -> list[Odds]:
    """Log odds of the candidates of each sentence by weights that were fitted to the other folds."""
    found: list[Odds] = [[] for _ in rows]
    for fold in range(FOLDS):
        weights = fit([row for row in rows if row.fold != fold])
        inside = [number for number, row in enumerate(rows) if row.fold == fold]
        for number, odds in zip(inside, judged([rows[number] for number in inside], weights), strict=True):
            found[number] = odds
    return found


def chosen(rows: list[Labelled], odds: list[Odds], enough: float) -> list[list[Bounds]]:
    """The names of each sentence."""
    return [[span for _, span in choose(row.sentence, those, enough)] for row, those in zip(rows, odds, strict=True)]


def write(weights: dict[str, float], enough: float) -> None:
    """Keeps the weights where `names.find_names` reads them."""
    content = {
        "made by": "python -m benchmarks.names --fit",
        "enough": enough,
        "weights": dict(sorted(weights.items())),
    }
    PATH.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
