"""Where a rollout stands, and what its traffic says: wait, go on, or go back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from llmops_assets.serving.routing import shares, without_holdout
from llmops_assets.specs.rollout import Analysis
from resources.catalog import Endpoint, Intent

_BEYOND_CHANCE = 0.01
"""p of Fisher's one-sided test below which the new model's failures are more than the old one's by no accident."""


@dataclass(frozen=True)
class Step:
    """The step that an endpoint's rollout is in: percent of the users on the new model, counted from 0, since when.

    `old` is the model that the others have, or had before the last step.
    """

    number: int
    last: int
    share: float
    new: str
    old: str
    since: datetime

    @property
    def is_last(self) -> bool:
        return self.number >= self.last


def step_of(intent: Intent | None) -> int:
    """The step that a deployment is to bring an endpoint to, by the intent that it acts on."""
    return int(intent.detail.get("step", 0)) if intent is not None else 0


def current_step(
    endpoint: Endpoint, intent: Intent | None, phases: Mapping[int, Sequence[Mapping[str, Any]]], warm: bool
) -> Step | None:
    """The step that a rollout has come to; None where there is none, or a deployment is still on its way.

    `phases` are the route tables that the endpoint has had, `warm` says whether servers of another model than the
    wanted one are still up.
    """
    if intent is None or intent.outcome != "done" or intent.closed_at is None or endpoint.state != "live":
        return None
    served = shares(without_holdout(endpoint.routes))
    new = endpoint.spec.model_ref
    if new not in served:
        return None
    steps = endpoint.spec.rollout.steps or []
    others = [ref for ref in served if ref != new]
    old = others[0] if others else previous_model(endpoint, phases)
    if old is None or (not others and not warm):
        return None
    return Step(step_of(intent), max(0, len(steps) - 1), served[new], new, old, intent.closed_at)


def previous_model(endpoint: Endpoint, phases: Mapping[int, Sequence[Mapping[str, Any]]]) -> str | None:
    """The model that an endpoint's users had before the wanted one: beside it, or by its last phases; None without."""
    new = endpoint.spec.model_ref
    for routes in [endpoint.routes, *(phases[phase] for phase in sorted(phases, reverse=True))]:
        others = {ref: share for ref, share in shares(without_holdout(routes)).items() if ref != new}
        if others:
            return max(others, key=lambda ref: others[ref])
    return None


@dataclass(frozen=True)
class Judgement:
    """What the traffic of a step says, in a sentence with its figures."""

    decision: Literal["wait", "pass", "fail"]
    reason: str


def judge(outcomes: Mapping[str, Mapping[str, float]], step: Step, rules: Analysis) -> Judgement:
    """Whether the new model does as well as it has to. `outcomes` are requests, failures and latency_ms by model.

    It fails where its share of failures is above the limit, and above the old model's by Fisher's exact test, or where
    it is slower than allowed; that is said as soon as it is known. It passes with `min_requests` of the new model.
    """
    new = outcomes.get(step.new, {"requests": 0.0, "failures": 0.0, "latency_ms": 0.0})
    old = outcomes.get(step.old, {"requests": 0.0, "failures": 0.0, "latency_ms": 0.0})
    asked, failed = int(new["requests"]), int(new["failures"])
    finding = f"{step.new}: {failed} of {asked} requests failed"
    if failed > rules.max_failures * asked and _more_failures(failed, asked, old, rules.max_failures):
        beside = f", of {step.old} {old['failures']:.0f} of {old['requests']:.0f}" if old["requests"] else ""
        return Judgement("fail", f"{finding}, more than {rules.max_failures:.1%}{beside}")
    if asked < rules.min_requests:
        return Judgement("wait", f"{finding}; {rules.min_requests} requests are needed")
    if rules.max_slowdown is not None and old["latency_ms"] and old["requests"] >= rules.min_requests:
        slowdown = new["latency_ms"] / old["latency_ms"]
        finding += f", in {slowdown:.2f} × the time of {step.old}"
        if slowdown > rules.max_slowdown:
            return Judgement("fail", f"{finding}, which may be {rules.max_slowdown:g} at most")
    return Judgement("pass", finding)


def _more_failures(failed: int, asked: int, old: Mapping[str, float], limit: float) -> bool:
    """Whether failures are beyond chance more than the old model's, or, where that was not asked, than the limit."""
    from scipy.stats import binomtest, fisher_exact

    if old["requests"] >= 1:
        table = [[failed, asked - failed], [int(old["failures"]), int(old["requests"] - old["failures"])]]
        return float(fisher_exact(table, alternative="greater")[1]) < _BEYOND_CHANCE
    return float(binomtest(failed, asked, max(limit, 1e-9), alternative="greater").pvalue) < _BEYOND_CHANCE
