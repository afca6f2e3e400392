"""A running A/B test as it stands now: its confidence sequence, computed from what users said until this moment."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from llmops_assets.wiring import Wiring


@dataclass(frozen=True)
class Live:
    """The figures of a test now; `sequence` has, by users who rated, the difference and the ends of its interval."""

    figures: dict[str, Any]
    sequence: list[dict[str, float]]
    least_users: int


def live_experiment(wiring: Wiring, name: str) -> Live:
    """What is known of an experiment at this moment, by the analysis of its reports; nothing is decided here.

    Raises NotFound.
    """
    from llmops_assets.experiments import report
    from llmops_assets.experiments.analysis import path
    from llmops_assets.experiments.plan import plan_of, variants_of
    from llmops_assets.experiments.requests import RECENT_REQUESTS
    from llmops_assets.experiments.statistics import analyse_statistics

    catalog, policy = wiring.catalog, wiring.policy.experiments
    experiment = catalog.experiment(name)
    spec = experiment.spec
    phases = catalog.phases(spec.endpoint)
    analysis = analyse_statistics(
        catalog.user_statistics(endpoint=spec.endpoint, experiment=name, slow_ms=policy.latency_threshold_ms),
        {
            model: catalog.last_requests(spec.endpoint, name, variants_of(model, phases), RECENT_REQUESTS)
            for model in (spec.control, spec.treatment)
        },
        plan_of(spec, policy, experiment.started_at),
        phases,
        datetime.now(UTC),
    )
    points = [{k: asdict(p)[k] for k in ("n", "difference", "low", "high")} for p in path(analysis)]
    return Live(report.figures(analysis), points, 2 * analysis.plan.min_users)
