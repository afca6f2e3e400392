"""What a user says about an A/B test, before it starts: it cannot be changed while it runs."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llmops_assets.specs.base import Bool, Float, Int, Name, Part, Rule, Spec, Text, VersionedRef, View

Percent = Annotated[Int, Field(ge=1, le=99)]


class Margins(Part):
    """How much worse the treatment may be, as a share of requests; left out: the policy's."""

    slow_requests: Float | None = Field(default=None, ge=0, le=1)
    failed_requests: Float | None = Field(default=None, ge=0, le=1)


class ExperimentSpec(Spec):
    """Two models behind one endpoint, compared on what their users say."""

    kind: ClassVar[str] = "experiment"

    name: Name
    endpoint: Name
    control: VersionedRef = Field(description="The model in place, NAME@VERSION or NAME@ALIAS.")
    treatment: VersionedRef = Field(description="The model that might replace it.")
    split: Annotated[
        tuple[Percent, Percent], Field(description="Percent of the users on control and on treatment.")
    ] = (50, 50)
    duration_hours: Float = Field(gt=0, description="Without a decision by then, the control stays.")
    target_users_per_arm: Int = Field(
        default=200, ge=2, description="No decision before this many users with a rating are in each arm."
    )
    expected_users: Int = Field(
        ge=4,
        description="Users in both arms at which a decision is expected (N*): where the confidence sequence is "
        "tightest. Left out: twice target_users_per_arm.",
    )
    success_metric: Literal["user_rating"] = "user_rating"
    rating_window_hours: Float = Field(
        default=24.0, gt=0, description="Ratings count when given within this time after a user's first exposure."
    )
    minimum_effect: Float | None = Field(
        default=None,
        gt=0,
        description="The least difference in mean rating that matters: the test ends without a winner once the "
        "difference is known to be smaller. Left out: it is never ended for that.",
    )
    guardrails: Margins = Field(default_factory=Margins)
    auto_promote: Bool = Field(
        default=True,
        description="A decision to promote switches the endpoint and moves the registry's alias; else it is told only.",
    )
    description: Text | None = None

    @property
    def weights(self) -> tuple[float, float]:
        """The split as shares of 1."""
        return self.split[0] / 100, self.split[1] / 100

    @classmethod
    def complete(cls, data: dict[str, Any]) -> None:
        if data.get("expected_users") is None:
            target = data.get("target_users_per_arm", 200)
            usable = isinstance(target, int) and not isinstance(target, bool) and target >= 2
            data["expected_users"] = 2 * target if usable else 400

    @classmethod
    def rules(cls, view: View) -> Iterator[Rule]:
        control, treatment = view.get("control", str), view.get("treatment", str)
        if control and control == treatment:
            yield "treatment", "is the same model as control", "Name the model to be compared with it"
        split = view.get("split", list, tuple)
        if split and len(split) == 2 and all(isinstance(share, int) for share in split) and sum(split) != 100:
            yield "split", f"{split[0]} + {split[1]} is {sum(split)}, not 100", "Make the two add up to 100"
        target, expected = view.get("target_users_per_arm", int), view.get("expected_users", int)
        if target and expected and expected < 2 * target:
            yield (
                "expected_users",
                f"{expected} is fewer than two arms of {target} users, before which nothing is decided",
                "Make it at least twice target_users_per_arm, or leave it out",
            )
