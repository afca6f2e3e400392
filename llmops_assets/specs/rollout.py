"""The part of a DeploymentSpec that says how a new model takes over."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field

from llmops_assets.specs.base import Float, Int, Part, Rule, View


class TrafficSplit(Part):
    """Percent of the users on the model that was there and on the new one."""

    old: Int = Field(ge=0, le=100)
    new: Int = Field(ge=0, le=100)


class Analysis(Part):
    """What the new model's traffic has to show before it gets more, or the old one is let go."""

    min_requests: Int = Field(default=50, ge=1, description="Of the new model, in the step; before, the step waits.")
    max_failures: Float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="Share of failed requests. Failed is what is above it, and above the old model's beyond chance.",
    )
    max_slowdown: Float | None = Field(
        default=None, gt=1, description="Largest mean latency, as a multiple of the old model's. Left out: any."
    )


class Rollout(Part):
    """How a new model takes over: all users at once when it is healthy (blue-green), or a share of them (canary)."""

    strategy: Literal["blue-green", "canary"] = "blue-green"
    traffic_split: TrafficSplit | None = Field(default=None, description="canary only: one step, left by hand.")
    steps: list[Int] | None = Field(
        default=None, description="canary only: percent of the users on the new model, one step after another to 100."
    )
    keep_models: Int = Field(
        default=1,
        ge=1,
        le=8,
        description="canary only: how many of the models there keep users beside the new one, in equal parts.",
    )
    pause_seconds: Int = Field(default=300, ge=0, description="How long a step lasts at least.")
    advance: Literal["automatic", "manual"] = Field(
        default="automatic",
        description="Whether the next step follows by itself once the analysis passed, and the way back if it failed.",
    )
    analysis: Analysis = Field(default_factory=Analysis)
    warm_seconds: Int | None = Field(
        default=None,
        ge=0,
        description="How long the old model's servers stay up after the last step, for a way back. Left out: as "
        "long as a step, and without steps not at all.",
    )

    @property
    def kept_warm(self) -> int:
        """Seconds that the old model's servers stay up once it has no users."""
        if self.warm_seconds is not None:
            return self.warm_seconds
        return self.pause_seconds if self.steps else 0

    def share(self, step: int) -> int:
        """Percent of the users on the new model in a step, counted from 0."""
        if self.strategy != "canary":
            return 100
        if self.steps:
            return self.steps[min(step, len(self.steps) - 1)]
        return self.traffic_split.new if self.traffic_split is not None else 100


def rollout_rules(view: View) -> Iterator[Rule]:
    """What contradicts what in a rollout."""
    strategy, split = view.get("rollout.strategy", str), view.get("rollout.traffic_split", dict)
    steps = view.get("rollout.steps", list)
    if strategy == "canary" and split is None and steps is None:
        yield (
            "rollout.traffic_split",
            "required for canary",
            "Add traffic_split: {old: 90, new: 10}, or steps: [10, 50, 100]",
        )
    if strategy == "blue-green" and (view.get("rollout.keep_models", int) or 1) > 1:
        yield "rollout.keep_models", "only for canary: blue-green leaves one model", "Write strategy: canary"
    if steps is not None:
        yield from _step_rules(strategy, split, steps)
    if split is None:
        return
    old, new = view.get("rollout.traffic_split.old", int), view.get("rollout.traffic_split.new", int)
    if strategy == "blue-green":
        yield (
            "rollout.traffic_split",
            "only for canary: blue-green moves all users at once",
            "Remove it, or write strategy: canary",
        )
    elif old is not None and new is not None:
        if old + new != 100:
            yield "rollout.traffic_split", f"{old} + {new} is {old + new}, not 100", "Make the two add up to 100"
        elif strategy == "canary" and not 0 < new < 100:
            yield (
                "rollout.traffic_split.new",
                f"{new} is no canary: it leaves one of the two without users",
                "Choose 1 to 99, or write strategy: blue-green",
            )


def _step_rules(strategy: str | None, split: dict[str, Any] | None, steps: list[Any]) -> Iterator[Rule]:
    numbers = [step for step in steps if isinstance(step, int)]
    if strategy == "blue-green":
        yield "rollout.steps", "only for canary: blue-green moves all users at once", "Write strategy: canary"
    if split is not None:
        yield "rollout.steps", "given beside traffic_split, which is one step", "Leave one of the two out"
    rising = all(a < b for a, b in pairwise(numbers))
    if not numbers or not rising or numbers[0] < 1 or numbers[-1] != 100:
        yield "rollout.steps", f"{steps} does not rise to 100", "Write shares that grow, as in [10, 50, 100]"
