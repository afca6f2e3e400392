"""What the policy asks of an evaluation: gates, further suites, comparisons."""

from typing import Literal

from pydantic import Field, model_validator

from llmops_assets.specs.base import Bool, Float, Int, Part, Text, VersionedRef
from llmops_assets.specs.job_types import JobType
from llmops_assets.specs.suite import JudgeKind


class Gate(Part):
    """What a model must reach: a metric of a suite, on enough items."""

    metric: Text
    suite: Text = "test"
    judge: JudgeKind | None = Field(
        default=None, description="Rule that the suite must be judged by for its accuracy to count; left out, any."
    )
    at_least: Float | None = None
    at_most: Float | None = None
    n_at_least: Int = Field(ge=1)
    decided_by: Literal["point", "interval"] = Field(
        default="point", description="What is held against the bound: the estimate, or its worse 95 % bound."
    )

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a gate has exactly one of at_least and at_most")
        return self

    def passes(self, value: float, n: int, *, low: float | None = None, high: float | None = None) -> bool:
        """Whether a metric of `value`, measured on `n` items, opens the gate. NaN never does.

        On the interval its worse end decides: `low` where the figure must be high, `high` where it must be low. A
        figure without an interval does not open such a gate.
        """
        if self.decided_by == "interval":
            value = low if self.at_least is not None else high
            if value is None:
                return False
        enough = n >= self.n_at_least
        return enough and (value >= self.at_least if self.at_least is not None else value <= self.at_most)

    @property
    def text(self) -> str:
        """The gate in words: ``accuracy of test >= 0.9 on 200 items or more``."""
        bound = f">= {self.at_least}" if self.at_least is not None else f"<= {self.at_most}"
        what = ""
        if self.decided_by == "interval":
            what = f"{'lower' if self.at_least is not None else 'upper'} 95 % bound of "
        return f"{what}{self.metric} of {self.suite} {bound} on {self.n_at_least} items or more"


class JudgeEndpoint(Part):
    """The OpenAI-compatible server whose model judges answers where a suite asks for an LLM judge."""

    base_url: Text
    model: Text
    api_key_env: Text | None = Field(default=None, description="Environment variable that holds the key.")
    timeout_seconds: Float = Field(default=60.0, gt=0)
    concurrency: Int = Field(default=8, ge=1)


class Forgetting(Part):
    """How far the accuracy on a general suite may fall below that of the base."""

    max_fall: Float = Field(default=0.05, ge=0, le=1, description="In accuracy, as a difference: 0.05 is five points.")
    decided_by: Literal["point", "interval"] = Field(
        default="interval",
        description="interval: only a fall beyond chance counts (the whole paired 95 % interval beyond max_fall).",
    )


class Regression(Part):
    """Against the model in production, by McNemar's test on the same items."""

    alpha: Float = Field(default=0.05, gt=0, lt=0.5)
    withhold: Bool = Field(default=True, description="A model that is worse beyond chance is not registered.")


class EvaluationPolicy(Part):
    """What every model is asked besides its own test split, and how comparisons are judged."""

    suites: dict[JobType, list[VersionedRef]] = Field(
        default_factory=dict, description="eval_suite datasets, beside those of the training spec."
    )
    gates: list[Gate] = Field(default_factory=list, description="Further gates, on suites: all must be open.")
    forgetting: Forgetting = Field(default_factory=Forgetting)
    regression: Regression = Field(default_factory=Regression)
    judge: JudgeEndpoint | None = None
    latency_items: Int = Field(
        default=16, ge=0, description="Items asked once more, one at a time, to measure latency; 0 for none."
    )
