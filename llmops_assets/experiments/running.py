"""A running experiment as the catalog has it: every treatment compared with the control, and what is decided."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from llmops_assets.experiments.analysis import Analysis
from llmops_assets.experiments.comparisons import Comparison, comparisons, overall
from llmops_assets.experiments.decision import Decision, decide
from llmops_assets.experiments.plan import plan_of, variants_of
from llmops_assets.experiments.requests import RECENT_REQUESTS
from llmops_assets.experiments.statistics import analyse_statistics
from llmops_assets.specs.experiment_rules import ExperimentPolicy
from resources.catalog import Catalog, Experiment


@dataclass(frozen=True)
class ExperimentStatus:
    """What is known of an experiment now: comparisons, the deciding one first, and the decision over them.

    dropped: treatments that get no users any more, and why; harmful: those that should not from now on, though others
    go on.
    """

    comparisons: tuple[Comparison, ...]
    decision: Decision
    dropped: Mapping[str, str]
    harmful: Mapping[str, str]

    @property
    def deciding(self) -> Analysis:
        return self.comparisons[0].analysis


def status_of(
    experiment: Experiment, catalog: Catalog, policy: ExperimentPolicy, previous: Decision | None, now: datetime
) -> ExperimentStatus:
    """Compare the arms by what the catalog has added up of each user; a decision taken before stays as it was."""
    spec, name = experiment.spec, experiment.name
    phases, slow_ms = catalog.phases(spec.endpoint), policy.latency_threshold_ms
    statistics = catalog.user_statistics(endpoint=spec.endpoint, experiment=name, slow_ms=slow_ms)
    last = {
        model: catalog.last_requests(spec.endpoint, name, variants_of(model, phases), RECENT_REQUESTS)
        for model in spec.models
    }
    dropped = {model: arm.reason for model, arm in catalog.dropped_arms.of(name).items()}
    states: dict[str, list[str]] = {}
    for backend in catalog.backends(spec.endpoint):
        states.setdefault(backend.model_ref, []).append(backend.state)

    def decided(analysis: Analysis) -> Decision:
        found = states.get(analysis.plan.treatment, [])
        return decide(
            analysis,
            previous,
            treatment_has_backend=not found or any(state != "unhealthy" for state in found),
            dropped=dropped.get(analysis.plan.treatment),
            rule=policy.breaker,
        )

    analyses = [
        analyse_statistics(statistics, last, plan_of(spec, policy, experiment.started_at, treatment), phases, now)
        for treatment in spec.treatments
    ]
    compared = comparisons(analyses, policy.alpha, decided=decided)
    decision = previous if previous is not None and previous.final else overall(compared)
    if decision.outcome == "promote" and decision.winner is None:
        decision = replace(decision, winner=compared[0].treatment)
    harmful = {c.treatment: c.decision.reason for c in compared if c.decision.outcome == "rollback"}
    open_ones = {} if decision.final else {ref: why for ref, why in harmful.items() if ref not in dropped}
    return ExperimentStatus(compared, decision, dropped, open_ones)
