"""Fits the weights of names to labelled sentences, and says how they do on sentences that they were not fitted to.

Logistic regression over the features of `name_sentence` and `name_words`. None of them is a word of the sentences: what
is kept (`name_weights.json`) are a few hundred numbers. News and reviews hold no messages to a service, in which people
say who they are: sentences of our own (`chat_names.txt`, names in brackets) are fitted to as well, and never counted.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmops_assets.datasets.name_sentence import Bounds, Sentence
from llmops_assets.datasets.name_weights import PATH, choose, features
from llmops_assets.datasets.name_words import LOCK, Features
from llmops_assets.datasets.names import analysed

FOLDS = 5
_STRENGTH = 1.2
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
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression

    rows = rows + _chat()
    every = [found for row in rows for found in row.features]
    often = Counter(name for found in every for name, value in found.items() if value)
    kept = {name for name, count in often.items() if count >= _RARE}
    vectorizer = DictVectorizer()
    x = vectorizer.fit_transform([{name: found[name] for name in found.keys() & kept} for found in every])
    y = [candidate in row.names for row in rows for candidate in row.candidates]
    # The bias is a feature.
    model = LogisticRegression(C=_STRENGTH, max_iter=5000, fit_intercept=False).fit(x, y)
    return {
        str(name): round(float(weight), 3)
        for name, weight in zip(vectorizer.get_feature_names_out(), model.coef_[0], strict=True)
    }


Odds = list[tuple[float, Bounds]]


def judged(rows: list[Labelled], weights: dict[str, float]) -> list[Odds]:
    """Log odds of the candidates of each sentence."""
    return [
        [
            (sum(weights.get(name, 0.0) * value for name, value in found.items()), candidate)
            for found, candidate in zip(row.features, row.candidates, strict=True)
        ]
        for row in rows
    ]


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
