"""What the policy asks of experiments and of the traffic that they read."""

from typing import Literal

from pydantic import Field, model_validator

from llmops_assets.specs.base import Float, Int, Part, Text


class RatingScale(Part):
    """The ratings that users may give: the gateway takes no other, and an A/B test counts no other."""

    low: Int = Field(default=1, ge=1, le=5)
    high: Int = Field(default=5, ge=1, le=5)

    @model_validator(mode="after")
    def _has_two(self) -> "RatingScale":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} should be less than high {self.high}: one rating alone says nothing")
        return self


class Guardrail(Part):
    """How much worse than the control a treatment may be."""

    margin: Float = Field(ge=0, le=1, description="How much worse the treatment may be, as a share of requests.")


class Guardrails(Part):
    """What no experiment may worsen beyond its margin."""

    slow_requests: Guardrail
    failed_requests: Guardrail


class Breaker(Part):
    """When a treatment's last 50 requests end its traffic at once: the gateway gives its users to the control."""

    failed_share: Float = Field(default=0.3, gt=0, le=1, description="Of the requests, and twice the control's share.")
    slow_share: Float = Field(default=0.5, gt=0, le=1, description="Of the requests, and four times the control's.")
    slow_ms: Float = Field(default=4000, gt=0, description="A request that takes longer, or waits so long already.")
    requests: Int = Field(default=20, ge=5, description="Of the treatment, before anything trips.")
    users: Int = Field(default=3, ge=1, description="Whom they failed, or kept waiting.")


class ExperimentPolicy(Part):
    """What every experiment is held to."""

    alpha: Float = Field(gt=0, lt=0.5)
    users_per_arm: Int = Field(ge=2)
    srm_p: Float = Field(gt=0, lt=1)
    latency_threshold_ms: Float = Field(gt=0)
    rating: RatingScale
    guardrails: Guardrails
    breaker: Breaker = Field(default_factory=Breaker)
    max_duration_hours: Float = Field(gt=0)


class TrafficPolicy(Part):
    """What is kept of what users ask and get, and for how long."""

    retention_days: Int = Field(default=90, ge=1, description="Older requests, answers and ratings are deleted.")
    review_rating: Int = Field(default=2, ge=1, le=5, description="An answer that got it or less waits for a review.")
    review_sample: Float = Field(default=0.0, ge=0, le=1, description="Share of the other answers that wait as well.")
    reviewers: Literal[1, 2] = Field(default=1, description="Who have to agree before an answer is learned from.")
    user_share: Float = Field(default=0.2, gt=0, le=1, description="Of the new rows that one user may give at most.")
    address_share: Float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Of the new rows that one address may give at most, once they come from more than 1 / this.",
    )
    consent: Literal["assumed", "required"] = Field(
        default="assumed",
        description="required: only what a user agreed to (x-llmops-consent: yes) may be reviewed and trained on.",
    )


class DriftRules(Part):
    """When the traffic of an endpoint counts as other than before: smaller differences are no drift."""

    window_days: Int = Field(default=7, ge=1, le=90, description="Of traffic; whole weeks have every weekday.")
    every_requests: Int = Field(default=500, ge=1, description="So many new requests are looked at again.")
    fewest_requests: Int = Field(default=30, ge=10, description="With fewer nothing is compared.")
    requests_per_user: Int = Field(default=10, ge=1, description="Of one user no more count in a window.")
    alpha: Float = Field(default=0.05, gt=0, lt=0.5, description="Chance of a false alarm, all features together.")
    psi: Float = Field(default=0.1, gt=0, description="Population stability index that is of consequence.")
    ks: Float = Field(default=0.1, gt=0, lt=1, description="The same of the Kolmogorov-Smirnov distance.")
    share: Float = Field(default=0.02, gt=0, lt=1, description="The same of a share, as a difference.")
    auc: Float = Field(
        default=0.6, gt=0.5, lt=1, description="The same of how well a classifier tells new questions from old ones."
    )


class Judging(Part):
    """How much of the traffic `evaluation.judge` judges."""

    share: Float = Field(default=0.0, ge=0, le=1, description="Of an endpoint's answers; 0 for none.")
    shares: dict[Text, Float] = Field(default_factory=dict, description="By endpoint, where it is another.")
    most_per_day: Int = Field(default=200, ge=1, description="Of an endpoint.")

    def share_of(self, endpoint: str) -> float:
        """The share of an endpoint's answers that is judged."""
        return self.shares.get(endpoint, self.share)
