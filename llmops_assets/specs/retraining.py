"""What users write of retraining: for which recipe, upon what, how often, and for how much."""

from fnmatch import fnmatchcase
from typing import ClassVar

from pydantic import Field, model_validator

from llmops_assets.specs.base import Bool, Float, Int, Part, Spec, Text
from llmops_assets.specs.names import check_key


class Reviewed(Part):
    """Retrain once enough answers were reviewed since the last time; they are registered as a dataset version first."""

    rows: Int = Field(ge=1, description="Newly reviewed, usable answers.")
    dataset: Text = Field(description="Name of the dataset whose versions they become; the selector has to match it.")


class RetrainingRule(Spec):
    """When a recipe is trained anew without anybody asking."""

    kind: ClassVar[str] = "retraining"

    name: Text
    recipe: Text = Field(description="Key of a recipe that was trained before.")
    datasets: Text = Field(description="Which datasets the recipe is for: a name, or a pattern such as desk-*.")
    endpoint: Text | None = Field(default=None, description="Whose drift and reviewed answers count.")
    on_new_version: Bool = Field(default=True, description="A new version of a matching dataset is a reason.")
    on_drift: Bool = Field(default=False, description="Drift of the endpoint is a reason.")
    on_reviewed: Reviewed | None = None
    cooldown_hours: Float = Field(default=24.0, ge=0, description="Between two trainings of the rule.")
    trainings_per_30_days: Int = Field(default=8, ge=1)
    gpu_hours_per_30_days: Float | None = Field(default=None, gt=0, description="What its trainings took; null: any.")

    @model_validator(mode="after")
    def _consistent(self) -> "RetrainingRule":
        for name in (self.name, self.recipe):
            check_key(name)
        if not (self.on_new_version or self.on_drift or self.on_reviewed):
            raise ValueError("name a reason: on_new_version, on_drift or on_reviewed")
        if self.endpoint is None and (self.on_drift or self.on_reviewed):
            raise ValueError("endpoint: on_drift and on_reviewed need the endpoint that they look at")
        if self.on_reviewed is not None and not self.selects(self.on_reviewed.dataset):
            raise ValueError(f"on_reviewed.dataset: {self.on_reviewed.dataset!r} does not match {self.datasets!r}")
        return self

    def selects(self, dataset: str) -> bool:
        """Whether a dataset of that name is one for the recipe."""
        return fnmatchcase(dataset, self.datasets)
