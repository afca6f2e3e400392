"""What an endpoint leaves behind: what it serves, and its drift."""

from datetime import datetime
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


class DriftPoint(Record):
    """One look at the traffic of an endpoint, as plots over time and later looks need it."""

    asset: ClassVar[str] = "drift_report"
    since: datetime
    until: datetime
    requests: int
    drifted: list[str] = Field(description="Features that differ, with what they were compared with.")
    exceeds: dict[str, float] = Field(description="By comparison, the distance over its floor: 1 is of consequence.")
    levels: dict[str, float] = Field(default_factory=dict, description="Median or share by feature.")
    model_ref: str = Field(description="Of the model with the most users.")


class DriftRecord(Record):
    """The traffic of an endpoint against the training data of what it serves, and against the last good window."""

    asset: ClassVar[str] = "drift_report"
    endpoint: str
    model_ref: str = Field(description="The model with the most users, whose training data is the reference.")
    requests: int
    reference_rows: int
    features: dict[str, dict[str, float]] = Field(description="Against the training data.")
    drifted: list[str] = Field(description="Features that differ from the training data.")
    ratings: int = 0
    rating_mean: float | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_since: datetime | None = Field(default=None, description="Of the last good window; null where none is.")
    before_until: datetime | None = None
    before_features: dict[str, dict[str, float]] = Field(default_factory=dict)
    before_drifted: list[str] = Field(default_factory=list, description="Features that differ from that window.")
    history: list[DriftPoint] = Field(default_factory=list, description="Looks, oldest first, this one last.")
