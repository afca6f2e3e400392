"""What a user says about an A/B test, before it starts: it cannot be changed while it runs."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from llmops_assets.specs.base import Bool, Float, Int, Name, Part, Rule, Spec, Text, VersionedRef, View

Percent = Annotated[Int, Field(ge=1, le=99)]


_NUMBERS = {2: "two", 3: "three", 4: "four"}


class Margins(Part):
    """How much worse the treatment may be, as a share of requests; left out: the policy's."""

    slow_requests: Float | None = Field(default=None, ge=0, le=1)
    failed_requests: Float | None = Field(default=None, ge=0, le=1)


class ExperimentSpec(Spec):
    """Models behind one endpoint, compared on what their users say."""

    kind: ClassVar[str] = "experiment"

    name: Name
    endpoint: Name
    control: VersionedRef = Field(description="The model in place, NAME@VERSION or NAME@ALIAS.")
    treatment: VersionedRef = Field(description="The model that might replace it.")
    other_treatments: list[VersionedRef] = Field(
        default_factory=list, max_length=8, description="Further ones, each compared with the same control (Holm)."
    )
    split: Annotated[
        tuple[Percent, ...], Field(min_length=2, description="Percent of the users on control and on each treatment.")
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
    def treatments(self) -> tuple[str, ...]:
        """Every model that might replace the control."""
        return (self.treatment, *self.other_treatments)

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that takes part, the control first."""
        return (self.control, *self.treatments)

    @property
    def weights(self) -> tuple[float, ...]:
        """The split as shares of 1."""
        return tuple(share / 100 for share in self.split)

    @classmethod
    def complete(cls, data: dict[str, Any]) -> None:
        others = data.get("other_treatments")
        if data.get("split") is None and isinstance(others, list) and others:
            arms = 2 + len(others)
            data["split"] = [100 // arms + (arm < 100 % arms) for arm in range(arms)]
        if data.get("expected_users") is None:
            target = data.get("target_users_per_arm", 200)
            usable = isinstance(target, int) and not isinstance(target, bool) and target >= 2
            data["expected_users"] = 2 * target if usable else 400

    @classmethod
    def rules(cls, view: View) -> Iterator[Rule]:
        control, treatment = view.get("control", str), view.get("treatment", str)
        if control and control == treatment:
            yield "treatment", "is the same model as control", "Name the model to be compared with it"
        others = [ref for ref in view.get("other_treatments", list) or [] if isinstance(ref, str)]
        models = [model for model in (control, treatment, *others) if model]
        if doubled := next((ref for ref in others if models.count(ref) > 1), None):
            yield "other_treatments", f"{doubled} takes part already", "Name every model once"
        split = view.get("split", list, tuple)
        if split and len(split) != 2 + len(others):
            arms = f"a control and {1 + len(others)} treatments" if others else "a control and a treatment"
            yield "split", f"{len(split)} shares for {arms}", "Give each model one, the control first"
        elif split and all(isinstance(share, int) for share in split) and sum(split) != 100:
            sums = " + ".join(map(str, split))
            yield (
                "split",
                f"{sums} is {sum(split)}, not 100",
                f"Make the {_NUMBERS.get(len(split), 'shares')} add up to 100",
            )
        target, expected = view.get("target_users_per_arm", int), view.get("expected_users", int)
        if target and expected and expected < 2 * target:
            yield (
                "expected_users",
                f"{expected} is fewer than two arms of {target} users, before which nothing is decided",
                "Make it at least twice target_users_per_arm, or leave it out",
            )
