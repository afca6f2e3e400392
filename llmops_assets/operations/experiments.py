"""A/B tests: starting them, and what is known of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops_assets.operations.access import authorise
from llmops_assets.operations.endpoints import refuse_affected
from llmops_assets.operations.errors import Refused
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from resources.catalog import Experiment


@dataclass(frozen=True)
class Started:
    """A running experiment, and whether this call began it."""

    name: str
    endpoint: str
    new: bool


def start_experiment(wiring: Wiring, actor: str, spec: ExperimentSpec) -> Started:
    """Start an A/B test between two models that its endpoint serves.

    Raises Refused when the endpoint does not serve both, ModelAffected, or Conflict when another test runs there.
    """
    authorise(wiring, actor, "experiment.create")
    # An alias may move while the test runs; the two models that it compares may not.
    refs = {arm: wiring.tracking.version(getattr(spec, arm)).ref for arm in ("control", "treatment")}
    refuse_affected(wiring, refs["treatment"])
    spec = spec.model_copy(update=refs)
    served = {route["model_ref"] for route in wiring.catalog.endpoint(spec.endpoint).routes}
    if missing := [ref for ref in refs.values() if ref not in served]:
        raise Refused(
            f"endpoint {spec.endpoint!r} does not serve {' and '.join(missing)}: deploy it as a canary beside the other"
        )
    return Started(spec.name, spec.endpoint, wiring.catalog.create_experiment(spec, actor))


@dataclass(frozen=True)
class Report:
    """An experiment as the catalog has it, and its newest analysis, None before the first."""

    experiment: "Experiment"
    analysis: AbReportRecord | None


def experiment_report(wiring: Wiring, name: str) -> Report:
    """The state of an experiment; raises NotFound."""
    return Report(wiring.catalog.experiment(name), wiring.records.find(AbReportRecord, name))
