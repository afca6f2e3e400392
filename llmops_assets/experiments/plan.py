"""What is fixed about an A/B test before the first user comes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.experiment_rules import ExperimentPolicy

Routes = Sequence[Mapping[str, Any]]
"""The route table of one phase: model_ref and weight of each route, in the order that variants are counted in."""
ARMS = ("control", "treatment")
SLOW, FAILED = "slow_requests", "failed_requests"


@dataclass(frozen=True)
class Plan:
    """What was fixed before the first user came.

    started_at and ends_at are None for a log without a duration: such a test is never over by itself. minimum_effect: a
    difference that is smaller matters to nobody, in units of the metric; None where nobody said. scale: the values that
    are possible, None where any number is. comparisons: treatments that are compared with this control, by which the
    levels are divided (Bonferroni; Holm's step-down decides between them, `multiplicity.holm`).
    """

    experiment: str
    control: str
    treatment: str
    started_at: datetime | None
    ends_at: datetime | None
    rating_window: timedelta
    min_users: int
    expected_users: int
    alpha: float
    srm_p: float
    slow_ms: float
    margins: Mapping[str, float] = field(default_factory=dict)
    scale: tuple[int, int] | None = (1, 5)
    success_metric: str = "user_rating"
    minimum_effect: float | None = None
    higher_is_better: bool = True

    @property
    def closes_at(self) -> datetime | None:
        """When the last rating that counts can have come in."""
        return None if self.ends_at is None else self.ends_at + self.rating_window

    @property
    def deterioration_alpha(self) -> float:
        """Level of each two-sided sequence that looks for harm: α/2 one-sided, shared by the rating and the guardrails.

        Schultzberg, Ankargren & Frånberg, arXiv 2402.11609: deterioration is tested on every metric, so the level is
        divided; promotion needs all guardrails at once, so theirs is not.
        """
        return self.alpha / (1 + len(self.margins))


def plan_of(spec: ExperimentSpec, policy: ExperimentPolicy, started_at: datetime, treatment: str | None = None) -> Plan:
    """The plan of an experiment: the spec, and the policy where the spec says nothing.

    treatment: which of several is compared with the control, at α by their number; left out, the first.
    """
    margins = {
        name: getattr(policy.guardrails, name).margin if margin is None else margin
        for name, margin in ((SLOW, spec.guardrails.slow_requests), (FAILED, spec.guardrails.failed_requests))
    }
    return Plan(
        experiment=spec.name,
        control=spec.control,
        treatment=treatment or spec.treatment,
        started_at=started_at,
        ends_at=started_at + timedelta(hours=spec.duration_hours),
        rating_window=timedelta(hours=spec.rating_window_hours),
        min_users=spec.target_users_per_arm,
        expected_users=spec.expected_users,
        alpha=policy.alpha / len(spec.treatments),
        srm_p=policy.srm_p,
        slow_ms=policy.latency_threshold_ms,
        margins=margins,
        scale=(policy.rating.low, policy.rating.high),
        success_metric=spec.success_metric,
        minimum_effect=spec.minimum_effect,
    )


def shares_by_phase(phases: Mapping[int, Routes], plan: Plan) -> dict[int, tuple[float, float]]:
    """Intended traffic of (control, treatment) in each phase, from its route table."""
    return {phase: (_share(routes, plan.control), _share(routes, plan.treatment)) for phase, routes in phases.items()}


def variants_of(model: str, phases: Mapping[int, Routes]) -> list[tuple[int, int]]:
    """The (phase, variant) pairs that a model was behind, for users who take part."""
    return [(p, v) for p, routes in phases.items() for v, route in enumerate(routes) if takes_part(route, model)]


def takes_part(route: Mapping[str, Any], model: str) -> bool:
    """Whether the users of a route are those whom a model is compared on: not those who are held out of everything."""
    return route["model_ref"] == model and not route.get("holdout")


def _share(routes: Routes, model: str) -> float:
    return sum(float(r["weight"]) for r in routes if takes_part(r, model))
