"""How well a classifier tells two sets of texts apart: embedding drift as an area under the ROC curve."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MOST_TEXTS = 2000
"""Of each side: more of them make the interval narrower and no decision better."""
_DIMENSIONS = 32
_FEATURES = 1 << 14


@dataclass(frozen=True)
class Separation:
    """The area under the ROC curve of a classifier of "traffic" against "reference": .5 is chance, 1 apart.

    low and high: its 95 % interval; p: of an area as large by chance, one-sided.
    """

    auc: float
    low: float
    high: float
    p: float


def embed(texts: Sequence[str], dimensions: int = _DIMENSIONS) -> NDArray[np.float64]:
    """Texts as vectors of shape (texts, dimensions at most): latent semantic analysis of character 2- to 4-grams.

    It needs no model and no language; where all texts are alike there are fewer dimensions.
    """
    from scipy.sparse.linalg import svds

    matrix = ngrams(texts)
    rank = min(dimensions, min(matrix.shape) - 1)
    if rank < 1:
        return np.zeros((len(texts), 1))
    start = np.random.default_rng(0).normal(size=min(matrix.shape))
    left, values, _ = svds(matrix, k=rank, v0=start)
    return left * values


def ngrams(texts: Sequence[str]) -> "csr_matrix":
    """Hashed character 2- to 4-grams of texts, weighted by their rarity, each row of length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=_FEATURES, alternate_sign=False)
    return TfidfTransformer(sublinear_tf=True).fit_transform(hashed.transform([text.casefold() for text in texts]))


def separation(
    reference: Sequence[str],
    traffic: Sequence[str],
    reference_users: Sequence[int] | NDArray[np.int64],
    traffic_users: Sequence[int] | NDArray[np.int64],
) -> Separation:
    """Tell the texts of two windows apart, by users who were not learned from.

    It is learned from one half of the users and measured on the other: what is known of a person says nothing of other
    persons, and the two halves are independent, which the areas of cross-validation are not (their mean is far too sure
    of itself). The variance is that of clustered ROC data (Obuchowski, Biometrics 1997), and not below that of ranks
    by chance. A user has the same code on both sides.
    """
    x = embed([*reference, *traffic])
    y = np.repeat([0, 1], [len(reference), len(traffic)])
    _, codes = np.unique(np.concatenate([np.asarray(reference_users), np.asarray(traffic_users)]), return_inverse=True)
    taught = np.random.default_rng(0).permutation(int(codes.max()) + 1)[codes] % 2 == 0
    n, m = np.bincount(y[~taught], minlength=2)
    if min(n, m) < 2 or min(np.bincount(y[taught], minlength=2)) < 2:
        return Separation(0.5, 0.0, 1.0, 1.0)
    auc, variance = clustered_auc(_scores(x[taught], y[taught], x[~taught]), y[~taught], codes[~taught])
    normal, error = NormalDist(), math.sqrt(variance)
    by_chance = math.sqrt((n + m + 1) / (12 * n * m))
    half = normal.inv_cdf(0.975) * error
    p = 1 - normal.cdf((auc - 0.5) / max(error, by_chance))
    return Separation(auc, max(0.0, auc - half), min(1.0, auc + half), p)


def clustered_auc(
    scores: NDArray[np.float64], y: NDArray[np.int64], clusters: NDArray[np.int64]
) -> tuple[float, float]:
    """The area under the ROC curve of `scores` for y = 1 against y = 0, and its variance over clusters.

    With every row a cluster of its own it is DeLong's (Biometrics 1988) but for the factor G/(G−1).
    """
    from scipy.stats import rankdata

    positive, negative = scores[y == 1], scores[y == 0]
    n, m = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:n] - rankdata(positive)) / m
    below = 1 - (ranks[n:] - rankdata(negative)) / n
    area = float(above.mean())
    parts = np.empty(n + m)
    parts[y == 1], parts[y == 0] = (above - area) / n, (below - area) / m
    _, codes = np.unique(clusters, return_inverse=True)
    sums = np.bincount(codes, weights=parts)
    groups = len(sums)
    return area, float(np.sum(sums**2)) * groups / max(1, groups - 1)


def _scores(x: NDArray[np.float64], y: NDArray[np.int64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    scale = x.std(axis=0) + 1e-12
    fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200).fit(x / scale, y)
    return fitted.decision_function(of / scale)


class CategoryGuess:
    """Tells the category of a question as a training set has them, so that the mix of traffic can be compared."""

    def __init__(self, texts: Sequence[str], categories: Sequence[str]) -> None:
        """Learn from the questions of a training set; two categories or more."""
        from sklearn.linear_model import SGDClassifier

        self.names = sorted(set(categories))
        codes = {name: code for code, name in enumerate(self.names)}
        self._model = SGDClassifier(loss="log_loss", random_state=0, class_weight="balanced")
        self._model.fit(_plain(texts), [codes[name] for name in categories])

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The likeliest category of each text, as a place in `names`."""
        return self._model.predict(_plain(texts)).astype(float)


def _plain(texts: Sequence[str]) -> "csr_matrix":
    """N-grams without weights that would depend on the other texts."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashed = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=_FEATURES, alternate_sign=False)
    return hashed.transform([text.casefold() for text in texts])
