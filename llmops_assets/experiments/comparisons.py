"""Several treatments against one control: each decided at its level, and what that makes of the whole test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmops_assets.experiments import inference
from llmops_assets.experiments.analysis import Analysis
from llmops_assets.experiments.decision import Decision, decide
from llmops_assets.experiments.multiplicity import holm

_ORDER = {"promote": 0, "invalid": 1, "rollback": 2, "continue": 3, "inconclusive": 4, "no_difference": 5}


@dataclass(frozen=True)
class Comparison:
    """One treatment against the control; p is Holm's over all treatments."""

    treatment: str
    analysis: Analysis
    decision: Decision
    p: float | None


def comparisons(
    analyses: Sequence[Analysis],
    alpha: float,
    *,
    higher_is_better: bool = True,
    decided: Callable[[Analysis], Decision] = decide,
) -> tuple[Comparison, ...]:
    """Every comparison with its own decision, the deciding one first. The analyses are made at alpha / K.

    Of several treatments the one with the i-th smallest p (from 0) is decided at α/(K − i), as long as all before it
    were found to differ: Holm's steps. The others keep α/K, Bonferroni's.
    """
    known = [index for index, a in enumerate(analyses) if a.rating is not None]
    raw = [a.rating.p for a in analyses if a.rating is not None]
    adjusted: dict[int, float] = dict(zip(known, map(float, holm(raw)), strict=True))
    steps = {known[at]: step for step, at in enumerate(np.argsort(raw, kind="stable"))}
    compared = []
    for index, analysis in enumerate(analyses):
        p = adjusted.get(index)
        if p is not None and p < alpha and steps[index]:
            analysis = _at_level(analysis, alpha / (len(known) - steps[index]))
        compared.append(Comparison(analysis.plan.treatment, analysis, decided(analysis), p))
    sign = 1 if higher_is_better else -1

    def rank(c: Comparison) -> tuple[int, float]:
        difference = c.analysis.rating.difference if c.analysis.rating else 0.0
        return _ORDER[c.decision.outcome], -sign * difference

    return tuple(sorted(compared, key=rank))


def overall(compared: Sequence[Comparison]) -> Decision:
    """The decision over all treatments: the best one that may be promoted, else what stands in the way.

    One that does harm ends no comparison of the others: the test goes on while any of them is open.
    """
    first = compared[0].decision
    if len(compared) == 1:
        return first
    outcomes = {c.decision.outcome for c in compared}
    if first.outcome in ("promote", "invalid") or len(outcomes) == 1:
        others = ", ".join(f"{c.treatment}: {c.decision.outcome}" for c in compared[1:])
        return replace(first, reason=f"{first.reason} (of {len(compared)} treatments, by Holm; {others})")
    parts = "; ".join(f"{c.treatment}: {c.decision.outcome}, {c.decision.reason}" for c in compared)
    if "continue" in outcomes:
        return Decision("continue", parts)
    return Decision("rollback" if "rollback" in outcomes else "no_difference", parts, compared[0].analysis.at)


def _at_level(analysis: Analysis, alpha: float) -> Analysis:
    """The same figures with the sequence of the rating at another level; ρ stays as it was chosen, and so does p."""
    effect, plan = analysis.rating_effect, analysis.plan
    if effect is None or analysis.rating is None:
        return analysis
    rho2 = inference.mixture_rho2(plan.expected_users, plan.alpha)
    reach = float(inference.sequence_factor(effect.users, rho2, alpha)) * effect.se
    rating = replace(analysis.rating, low=effect.difference - reach, high=effect.difference + reach)
    return replace(analysis, plan=replace(plan, alpha=alpha), rating=rating)
