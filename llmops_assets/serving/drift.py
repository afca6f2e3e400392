"""How far the questions that an endpoint gets are from those that its model was trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Below these, a difference is of no consequence however certain it is: conventions of the field.
PSI_FLOOR = 0.10
KS_FLOOR = 0.10
_BINS = 10


@dataclass(frozen=True)
class Feature:
    """One property of a text, in the reference and in the traffic (1-D float arrays), with its two distances."""

    name: str
    reference: np.ndarray
    traffic: np.ndarray
    psi: float
    psi_threshold: float
    ks: float
    ks_threshold: float

    @property
    def drifted(self) -> bool:
        return self.psi > self.psi_threshold or self.ks > self.ks_threshold


def compare(reference: Sequence[str], traffic: Sequence[str]) -> list[Feature]:
    """Compare the texts of the traffic with those of the reference, feature by feature.

    Length in characters, share of Hangul among the letters, and share of character 3-grams that are new. What is new is
    told by one half of the reference, and its other half is what the traffic is compared with: measured on the texts
    that the vocabulary was taken from, the reference would have no new 3-grams at all.

    Raises ValueError with fewer than two texts in the traffic or four in the reference.
    """
    if len(traffic) < 2 or len(reference) < 4:
        raise ValueError(f"{len(traffic)} requests against {len(reference)} rows are too few to compare")
    vocabulary = set().union(*(_trigrams(text) for text in reference[::2]))
    held_out = reference[1::2]
    return [
        _feature("characters", _array(map(len, reference)), _array(map(len, traffic))),
        _feature("hangul share", _array(map(hangul_share, reference)), _array(map(hangul_share, traffic))),
        _feature(
            "new 3-grams",
            _array(new_share(text, vocabulary) for text in held_out),
            _array(new_share(text, vocabulary) for text in traffic),
        ),
    ]


def hangul_share(text: str) -> float:
    """Hangul syllables and jamo among the letters of a text; 0 where there is no letter."""
    letters = [c for c in text if c.isalpha()]
    hangul = sum("\uac00" <= c <= "\ud7a3" or "\u3131" <= c <= "\u318e" or "\u1100" <= c <= "\u11ff" for c in letters)
    return hangul / len(letters) if letters else 0.0


def new_share(text: str, vocabulary: set[str]) -> float:
    """Share of a text's distinct character 3-grams that are not in `vocabulary`; 0 where there are none."""
    trigrams = _trigrams(text)
    return len(trigrams - vocabulary) / len(trigrams) if trigrams else 0.0


def population_stability(reference: np.ndarray, traffic: np.ndarray) -> tuple[float, float]:
    """Population stability index over deciles of the reference, and the threshold above which it means something.

    The threshold is the conventional 0.1, or where samples are small what two samples of the same distribution exceed
    with a probability of 5 %: χ²(B−1, .95)·(1/N + 1/M) for B bins (Yurdakul & Naranjo, 2020).
    """
    from scipy.stats import chi2

    n, m = len(reference), len(traffic)
    deciles, times = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]), return_counts=True)
    # A value that fills several deciles is a bin of its own, closed on both sides.
    edges = np.union1d(deciles, np.nextafter(deciles[times > 1], -np.inf))
    counts = [np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1) for values in
              (reference, traffic)]  # fmt: skip
    used = (counts[0] + counts[1]) > 0
    bins = int(used.sum())
    if bins < 2:
        return 0.0, PSI_FLOOR
    # Half a row in each bin: an empty one would make the index infinite.
    p, q = ((c[used] + 0.5) / (c[used].sum() + 0.5 * bins) for c in counts)
    index = float(np.sum((q - p) * np.log(q / p)))
    return index, max(PSI_FLOOR, float(chi2.ppf(0.95, bins - 1)) * (1 / n + 1 / m))


def _feature(name: str, reference: np.ndarray, traffic: np.ndarray) -> Feature:
    from scipy.stats import ks_2samp

    psi, psi_threshold = population_stability(reference, traffic)
    distance = float(ks_2samp(reference, traffic, method="asymp").statistic)
    n, m = len(reference), len(traffic)
    # The distance that two samples of one distribution exceed with a probability of 1 % (Smirnov's asymptotic).
    critical = math.sqrt(-math.log(0.01 / 2) / 2 * (n + m) / (n * m))
    return Feature(name, reference, traffic, psi, psi_threshold, distance, max(KS_FLOOR, critical))


def _trigrams(text: str) -> set[str]:
    return {text[i : i + 3] for i in range(len(text) - 2)}


def _array(values) -> np.ndarray:
    return np.fromiter(values, dtype=float)
