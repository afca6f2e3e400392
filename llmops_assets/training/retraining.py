"""Decides whether a recipe is to be trained anew: upon what, on which version, or why not yet."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from llmops_assets.specs.retraining import RetrainingRule

PERIOD = timedelta(days=30)


@dataclass(frozen=True)
class Past:
    """A training that the rule asked for: when, and how many seconds it took, 0 while nobody knows."""

    at: datetime
    seconds: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What a rule is held against.

    versions: usable versions of the datasets that it selects, oldest first, with when they were registered; trained:
    those of them that the recipe was asked for already; underway: a training of the recipe that is not done.
    drifted: what of the endpoint differs, empty where nothing does, and drift_at when that was found.
    reviewed: usable answers that were reviewed since the last version of them.
    """

    now: datetime
    since: datetime
    versions: Sequence[tuple[str, datetime]]
    trained: Collection[str]
    underway: str | None
    past: Sequence[Past]
    drifted: Sequence[str] = ()
    drift_at: datetime | None = None
    reviewed: int = 0


@dataclass(frozen=True)
class Retrain:
    """A training is due. cause: what it is due upon; dataset: None for "register what was reviewed"."""

    cause: str
    reason: str
    dataset: str | None


@dataclass(frozen=True)
class NotYet:
    """None is due, and why.

    is_held: there was a reason for one, and something is in the way. needs_person: time alone does not clear it.
    """

    reason: str
    is_held: bool = False
    needs_person: bool = False


def decide(rule: RetrainingRule, facts: Facts) -> Retrain | NotYet:
    """What a rule asks for. One reason is enough; cool-down, budget and a training under way hold every one of them.

    Training the same rows by the same recipe gives the same model: so drift alone is a reason only where there are
    rows that the recipe has not seen.
    """
    wanted = _wanted(rule, facts)
    if isinstance(wanted, NotYet):
        return wanted
    if waits := _waits_for(rule, facts):
        return NotYet(f"{wanted.reason}; {waits}", is_held=True)
    if spent := _budget_spent(rule, facts):
        return NotYet(f"{wanted.reason}; {spent}", is_held=True, needs_person=True)
    return wanted


def _wanted(rule: RetrainingRule, facts: Facts) -> Retrain | NotYet:
    untrained = [(key, at) for key, at in facts.versions if key not in facts.trained]
    # What was there before the rule somebody chose not to train on, or trained on by another recipe.
    newer = [(key, at) for key, at in untrained if at > facts.since]
    if rule.on_new_version and newer:
        key = newer[-1][0]
        return Retrain(f"version:{key}", f"{key} is a new version of {rule.datasets}", key)
    if rule.on_reviewed is not None and facts.reviewed >= rule.on_reviewed.rows:
        reason = f"{facts.reviewed} answers of endpoint {rule.endpoint} were reviewed since the last time"
        return Retrain(f"reviewed:{facts.now.isoformat()}", reason, None)
    if rule.on_drift and facts.drifted and facts.drift_at is not None:
        reason = f"endpoint {rule.endpoint} drifted: {', '.join(facts.drifted)}"
        cause = f"drift:{facts.drift_at.isoformat()}"
        if untrained:
            return Retrain(cause, f"{reason}; trained on {untrained[-1][0]}", untrained[-1][0])
        if rule.on_reviewed is not None and facts.reviewed:
            return Retrain(cause, f"{reason}; with {facts.reviewed} reviewed answers", None)
        return NotYet(
            f"{reason}, but there are no rows that the recipe has not seen: review answers, or register a version of "
            f"{rule.datasets}",
            is_held=True,
            needs_person=True,
        )
    return NotYet("nothing is new")


def _waits_for(rule: RetrainingRule, facts: Facts) -> str | None:
    if facts.underway is not None:
        return f"waits for {facts.underway}, which is not done: one at a time of a recipe"
    last = max((one.at for one in facts.past), default=None)
    if last is not None and facts.now < (free := last + timedelta(hours=rule.cooldown_hours)):
        return f"waits until {free:%Y-%m-%d %H:%M} UTC: {rule.cooldown_hours:g} hours after the last one"
    return None


def _budget_spent(rule: RetrainingRule, facts: Facts) -> str | None:
    recent = [one for one in facts.past if one.at > facts.now - PERIOD]
    if len(recent) >= rule.trainings_per_30_days:
        return f"the budget is used up: {len(recent)} trainings in 30 days"
    hours = sum(one.seconds for one in recent) / 3600
    if rule.gpu_hours_per_30_days is not None and hours >= rule.gpu_hours_per_30_days:
        return f"the budget is used up: {hours:.1f} of {rule.gpu_hours_per_30_days:g} GPU hours in 30 days"
    return None
