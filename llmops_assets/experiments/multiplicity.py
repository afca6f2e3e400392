"""Several comparisons at once: p-values that hold the error of all of them together."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted by Holm's step-down (Scandinavian Journal of Statistics 1979), as R's `p.adjust(p, "holm")`.

    The chance that any true "no difference" is below α stays at α, whatever the dependence: several treatments share
    one control. Always-valid p-values stay always valid, since the adjustment is monotone in each of them.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted to the false discovery rate (Benjamini & Hochberg, JRSS B 1995), as R's `p.adjust(p, "BH")`."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")[::-1]
    steps = values[order] * len(values) / np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.minimum.accumulate(steps), 1.0)
    return adjusted
