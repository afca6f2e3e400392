"""What a judge's verdicts say of the truth, once its own errors are known from answers that people judged too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Calibration:
    """How a judge did on answers that people judged.

    Of `good` answers (by people) it called `called_good` good; of `bad` ones it called `called_bad` bad.
    """

    good: int
    called_good: int
    bad: int
    called_bad: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[bool, bool]]) -> "Calibration":
        """From pairs of (what people say, what the judge says)."""
        good = [judge for people, judge in pairs if people]
        bad = [judge for people, judge in pairs if not people]
        return cls(len(good), sum(good), len(bad), len(bad) - sum(bad))

    @property
    def sensitivity(self) -> float | None:
        """Share of the good answers that it calls good."""
        return self.called_good / self.good if self.good else None

    @property
    def specificity(self) -> float | None:
        """Share of the bad answers that it calls bad."""
        return self.called_bad / self.bad if self.bad else None


@dataclass(frozen=True)
class Corrected:
    """The share of good answers as it would be without the judge's errors, with its 95 % interval."""

    share: float
    low: float
    high: float


def corrected_share(called_good: int, judged: int, calibration: Calibration, alpha: float = 0.05) -> Corrected | None:
    """The true share behind an apparent one, by Rogan & Gladen (American Journal of Epidemiology 1978).

    (p + Sp − 1) / (Se + Sp − 1). The interval is that of Lang & Reiczigel (Preventive Veterinary Medicine 2014, eq. 16
    and 17), which knows that sensitivity and specificity were estimated too. None where nothing was judged, where
    people judged no good or no bad answer, and where the judge is no better than chance: its verdicts say nothing.
    """
    se, sp = calibration.sensitivity, calibration.specificity
    if not judged or se is None or sp is None or se + sp <= 1:
        return None
    apparent = called_good / judged
    share = (apparent + sp - 1) / (se + sp - 1)
    z = NormalDist().inv_cdf(1 - alpha / 2)
    # One success and one failure more in each sample of the calibration, z²/2 of each in that of the share.
    n_se, n_sp, n = calibration.good + 2, calibration.bad + 2, judged + z**2
    se, sp = (calibration.called_good + 1) / n_se, (calibration.called_bad + 1) / n_sp
    p = (called_good + z**2 / 2) / n
    youden = se + sp - 1
    if youden <= 0:
        return None
    centre = (p + sp - 1) / youden
    v_se, v_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z**2 * (centre * v_se - (1 - centre) * v_sp)
    error = math.sqrt(p * (1 - p) / n + centre**2 * v_se + (1 - centre) ** 2 * v_sp) / youden
    low, high = centre + shift - z * error, centre + shift + z * error
    return Corrected(*(min(1.0, max(0.0, value)) for value in (share, low, high)))
