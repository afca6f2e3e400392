"""The rule of an A/B test: when it goes on, promotes, rolls back, ends without a winner, or is invalid.

`no_difference` is futility: whatever the difference is, it is too small to matter.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from llmops_assets.experiments import breaker
from llmops_assets.experiments.analysis import Analysis, Guardrail, Plan
from llmops_assets.experiments.inference import Interval
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.experiment_rules import Breaker

Outcome = Literal["continue", "promote", "rollback", "no_difference", "inconclusive", "invalid"]
FINAL: tuple[Outcome, ...] = ("promote", "rollback", "no_difference", "inconclusive", "invalid")

QUIET_SPLIT_P = 0.05
"""What both tests of the split must reach for a promotion: Pearson's at this look, the sequential one at every look.

`srm_p` of the policy is where a split is proven broken, which takes more users than a promotion does. Of 3,000
simulated tests with a look every 20 users from 400 on, 95.1 % of the clean ones are quiet at the first look and 98.0 %
within 600 users. Where 17 % (30 %) of an arm are lost, 51.4 % (4.8 %) are at the first look; without this rule 99.0 %
(73.3 %) were let through (`python -m benchmarks.experiments --split 3000`)."""
MAX_INCONSTANT_SHARE = 0.01
"""Share of users who may be assigned both models within one phase before the comparison means nothing."""


@dataclass(frozen=True)
class Decision:
    """What was decided, why, and when; `decided_at` is None while the experiment goes on.

    winner: the model that is promoted, None where it is the only treatment's.
    """

    outcome: Outcome
    reason: str
    decided_at: datetime | None = None
    winner: str | None = None

    @property
    def final(self) -> bool:
        return self.outcome in FINAL


def decide(
    analysis: Analysis,
    previous: Decision | None = None,
    *,
    treatment_has_backend: bool = True,
    dropped: str | None = None,
    rule: Breaker | None = None,
) -> Decision:
    """Apply the rule to the figures as they are now; a final decision taken before is returned as it was.

    dropped: why the treatment has no users any more, where a gateway's breaker noted that: it is rolled back, whatever
    came in since, when users of one arm alone were counted. rule: the policy's breaker.
    treatment_has_backend: False when every backend of the treatment is known to be unhealthy. It counts only while the
    treatment's last request failed too, so that a restart of the platform ends no experiment.
    """
    if previous is not None and previous.final:
        return previous
    plan, now = analysis.plan, analysis.at

    def final(outcome: Outcome, reason: str) -> Decision:
        return Decision(outcome, reason, now)

    if dropped is not None:
        return final("rollback", dropped)
    if analysis.inconstant_share > MAX_INCONSTANT_SHARE:
        return final(
            "invalid",
            f"{analysis.inconstant_users} users ({analysis.inconstant_share:.1%}) were assigned both models within one "
            "phase: assignment is not sticky, so the arms cannot be compared",
        )
    if analysis.srm_p < plan.srm_p:
        users = " and ".join(f"{a.users} on {a.model}" for a in analysis.arms)
        return final(
            "invalid",
            f"sample ratio mismatch: {users} is not the intended split (p = {analysis.srm_p:.2g} < {plan.srm_p:g}). "
            "Users are lost or logged twice on one arm: find out where before comparing anything",
        )
    if tripped := _breaker(analysis, treatment_has_backend, rule or Breaker()):
        return final("rollback", tripped)
    if harms := _harms(analysis):
        return final("rollback", f"{plan.treatment} does harm: {'; '.join(harms)}")
    if _better(analysis) and not _doubts(analysis) and _quiet(analysis):
        rating = analysis.rating
        guarded = "every guardrail is within its margin, and " if plan.margins else ""
        return final(
            "promote",
            f"{_better_text(plan, rating)}, {guarded}users are split as intended (p = {analysis.srm_fixed_p:.2g})",
        )
    if analysis.rated_users >= plan.min_users and analysis.too_small_to_matter:
        rating = analysis.rating
        return final(
            "no_difference",
            f"no difference that matters: the {1 - plan.alpha:.0%} sequence {_number(rating.low)} to "
            f"{_number(rating.high)} lies within ± {plan.minimum_effect:g}. {plan.control} stays",
        )
    if plan.closes_at is not None and now >= plan.closes_at:
        return final(
            "inconclusive", f"the duration is over without a winner: {_missing(analysis)}. {plan.control} stays"
        )
    return Decision("continue", _missing(analysis))


def model_for(decision: Decision, experiment: ExperimentSpec) -> str | None:
    """The model that shall have all traffic of the endpoint from now on; None where a decision moves nothing.

    A promotion gives it to the treatment, every other end back to the control. While the experiment goes on nothing
    moves, and with `auto_promote: false` a promotion is only reported: the endpoint keeps both models until somebody
    concludes the experiment by hand.
    """
    if not decision.final:
        return None
    if decision.outcome == "promote":
        return (decision.winner or experiment.treatment) if experiment.auto_promote else None
    return experiment.control


def guardrail_text(guardrail: Guardrail) -> str:
    """A guardrail in words, with the figures that matter."""
    name = guardrail.name.replace("_", " ")
    return (
        f"{name}: {guardrail.treatment:.2%} against {guardrail.control:.2%}, worse by "
        f"{guardrail.sequence.low:+.2%} to {guardrail.sequence.high:+.2%}, {guardrail.margin:.2%} is allowed"
    )


def _breaker(analysis: Analysis, treatment_has_backend: bool, rule: Breaker) -> str | None:
    control, treatment = (
        breaker.Recent(
            a.recent_requests, round((a.recent_failed_share or 0.0) * a.recent_requests), a.recent_failed_users
        )
        for a in analysis.arms
    )
    if reason := breaker.tripped(analysis.plan.treatment, treatment, control, rule):
        return reason
    if not treatment_has_backend and analysis.arms[1].last_failed:
        return f"no backend of {analysis.plan.treatment} is healthy"
    return None


def _harms(analysis: Analysis) -> list[str]:
    """What is worse on the treatment beyond chance, from the planned number of users on."""
    least = analysis.plan.min_users
    found = []
    if analysis.rated_users >= least and analysis.rating_deteriorated:
        harm = analysis.rating_harm
        what, worse = ("ratings are", "lower") if analysis.plan.success_metric == "user_rating" else ("it is", "worse")
        ends = sorted((abs(harm.low), abs(harm.high)))
        found.append(f"{what} {worse} by {_number(ends[0])} to {_number(ends[1])}")
    if analysis.users >= least:
        found += [guardrail_text(g) for g in analysis.guardrails if g.deteriorated]
    return found


def _better(analysis: Analysis) -> bool:
    enough = analysis.rated_users >= analysis.plan.min_users
    return enough and analysis.rating_better and not analysis.nothing_varies


def _quiet(analysis: Analysis) -> bool:
    """Whether nothing speaks against the intended split: neither at this look, nor at any before it."""
    return min(analysis.srm_p, analysis.srm_fixed_p) >= QUIET_SPLIT_P


def _doubts(analysis: Analysis) -> list[str]:
    """Guardrails that are not yet shown to be within their margin."""
    known = {g.name for g in analysis.guardrails}
    missing = [f"{name.replace('_', ' ')}: not measured yet" for name in analysis.plan.margins if name not in known]
    return [guardrail_text(g) for g in analysis.guardrails if not g.non_inferior] + missing


def _missing(analysis: Analysis) -> str:
    """What stands between the present figures and a promotion."""
    plan, rating = analysis.plan, analysis.rating
    control, treatment = analysis.arms
    if analysis.rated_users < plan.min_users:
        who = f"{control.rated_users} users have rated {control.model} and {treatment.rated_users} {treatment.model}"
        if plan.success_metric != "user_rating":
            who = (
                f"{control.rated_users} users of {control.model} and {treatment.rated_users} of {treatment.model} count"
            )
        text = f"{who}; {plan.min_users} each are needed"
        waiting = sum(a.users - a.closed_users for a in analysis.arms)
        return f"{text} ({waiting} users still have time to rate)" if waiting else text
    if analysis.nothing_varies:
        return (
            f"all {control.rated_users} users of {control.model} gave the same, and so did all {treatment.rated_users} "
            f"of {treatment.model}: people differ, so look for values that a script or a default gives"
        )
    if rating is None or not analysis.rating_better:
        spread = f"{_number(rating.low)} to {_number(rating.high)}" if rating else "unknown"
        what = "the difference in ratings" if plan.success_metric == "user_rating" else "the difference"
        text = f"{what} may still be none ({1 - plan.alpha:.0%} sequence {spread})"
        doubts = _doubts(analysis)
        return f"{text}; open guardrails: {'; '.join(doubts)}" if doubts else text
    if doubts := _doubts(analysis):
        return f"ratings are better, but the guardrails are open: {'; '.join(doubts)}"
    return (
        f"ratings are better, but the split of users is not quiet enough to trust them: {control.users} users on "
        f"{control.model} and {treatment.users} on {treatment.model} (p = {analysis.srm_fixed_p:.2g} at this look, "
        f"{analysis.srm_p:.2g} over all looks; a promotion asks for {QUIET_SPLIT_P:g} of both). Look for requests "
        "that one arm loses before they are logged"
    )


def _better_text(plan: Plan, rating: Interval) -> str:
    """That the treatment is better, by how much."""
    interval = f"({1 - plan.alpha:.0%} sequence {_number(rating.low)} to {_number(rating.high)})"
    if plan.success_metric == "user_rating":
        return f"users rate {plan.treatment} higher by {_number(rating.difference)} {interval}"
    way = "higher" if plan.higher_is_better else "lower, which is better,"
    return f"{plan.success_metric} of {plan.treatment} is {way} by {_number(abs(rating.difference))} {interval}"


def _number(value: float) -> str:
    """Two decimals, or as many digits as a small number needs."""
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:.2g}"
