"""How an endpoint's own suite of confirmed failures grows, and how many of its items each model passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from llmops_assets import plots
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.specs.dataset import reviewed_answers_of
from resources.catalog import Catalog
from resources.records import Records

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SuiteVersion:
    """A version of the suite, when it was registered, and its items."""

    key: str
    at: datetime
    items: int


@dataclass(frozen=True)
class Passed:
    """The share of a suite's items that a model passed, with its 95 % interval; at: when its training was asked for."""

    cell: str
    suite: str
    at: datetime
    share: float
    low: float
    high: float


def growth(catalog: Catalog, records: Records, endpoint: str) -> list[SuiteVersion]:
    """The suites that were made of an endpoint's reviewed answers, oldest first; ingested ones."""
    found = []
    for entry in sorted(catalog.datasets(), key=lambda one: one.created_at):
        if entry.spec.type != "eval_suite" or entry.spec.description != reviewed_answers_of(endpoint):
            continue
        record = records.find(SplitsRecord, entry.key)
        if record is not None:
            found.append(SuiteVersion(entry.key, entry.created_at, sum(record.rows.values())))
    return found


def pass_rates(catalog: Catalog, records: Records, suites: Sequence[SuiteVersion]) -> list[Passed]:
    """What every model that was asked one of the suites passed of it, in the order that trainings were asked for."""
    keys = {suite.key for suite in suites}
    asked = {f"{r.dataset}|{r.recipe}": r.requested_at for r in reversed(catalog.training_requests())}
    found = []
    for record in records.all(EvaluationRecord):
        cell = f"{record.dataset}|{record.recipe}"
        for metric in record.metrics:
            is_it = metric.suite in keys and metric.name == "accuracy" and metric.model == "tuned"
            if is_it and cell in asked and metric.low is not None and metric.high is not None:
                found.append(Passed(cell, metric.suite, asked[cell], metric.value, metric.low, metric.high))
    return sorted(found, key=lambda one: (one.at, one.suite))


def plot(suites: Sequence[SuiteVersion], passed: Sequence[Passed]) -> "Figure":
    """Items by version of the suite, and the pass rate of each model with its interval."""
    fig, (left, right) = plots.figure(width=8.4, height=2.8, columns=2)
    left.step([one.at for one in suites], [one.items for one in suites], where="post", marker="o",
              color=plots.PALETTE[0])  # fmt: skip
    left.set_ylim(bottom=0)
    left.set_title("items of the regression suite")
    for place, one in enumerate(passed):
        spread = [[one.share - one.low], [one.high - one.share]]
        right.errorbar([place], [one.share], yerr=spread, fmt="o", capsize=3, color=plots.PALETTE[1])
    right.set_xticks(range(len(passed)), [f"{one.at:%m-%d}" for one in passed], rotation=45)
    right.set_ylim(0, 1)
    right.set_title("passed, by model")
    return fig
