"""What an endpoint leaves behind: what it serves, and its drift."""

from typing import Any, ClassVar

from pydantic import Field

from llmops_assets.records.base import Record


class DeploymentRecord(Record):
    """What an endpoint serves."""

    asset: ClassVar[str] = "deployment"
    endpoint: str
    revision: int
    phase: int
    model_ref: str = Field(description="The model that was wanted, as NAME@VERSION.")
    content_hash: str
    routes: list[dict[str, Any]] = Field(description="backend_id, model_ref, weight.")
    engine: str
    first_completion: str = Field(description="What the new backend answered before traffic was sent to it.")
    startup_seconds: float
    probed: list[str] = Field(
        default_factory=list, description="Server processes that answered as evaluated, by what names them."
    )
    left: list[str] = Field(default_factory=list, description="What could not be stopped, with the reason.")


class DriftRecord(Record):
    """The traffic of an endpoint against the training data of what it serves."""

    asset: ClassVar[str] = "drift_report"
    endpoint: str
    model_ref: str = Field(description="The model with the most users, whose training data is the reference.")
    requests: int
    reference_rows: int
    features: dict[str, dict[str, float]]
    drifted: list[str]
    ratings: int = 0
    rating_mean: float | None = None
