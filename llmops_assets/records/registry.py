"""What the registry leaves behind: versions, compressed forms, parity."""

from datetime import datetime
from typing import Any, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from llmops_assets.records.base import Record, StoredPath
from llmops_assets.records.evaluation import Metric


class RegisteredModelRecord(Record):
    """A version in the MLflow registry."""

    asset: ClassVar[str] = "registered_model"
    dataset: str
    recipe: str
    name: str
    version: int
    path: StoredPath
    content_hash: str
    family: str
    job_type: str
    mlflow_run_id: str | None
    card: StoredPath = Field(description="Path of the model card (Markdown).")
    scheme: str | None = Field(default=None, description="How its weights were compressed; None for the original.")

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"


class ParityRecord(Record):
    """Whether a server gives the token ids that the evaluation of these weights saw."""

    asset: ClassVar[str] = "parity"
    dataset: str
    recipe: str
    model_hash: str
    engine: str
    items: int
    differences: list[dict[str, Any]] = Field(description="question, kind, evaluated, served: of what differs.")
    explanation: str = Field(validation_alias=AliasChoices("explanation", "told"))
    passed: bool
    at: datetime


class CompressedModel(BaseModel):
    """One model with fewer bits, measured against the one that it was made of."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    scheme: str
    path: StoredPath
    content_hash: str
    answers: StoredPath = Field(default="", description="Path of its answers, as an evaluation has them.")
    answers_sha256: str = Field(default="", description="Of the answers before they are sealed.")
    size_bytes: int
    original_bytes: int
    metrics: list[Metric] = Field(description="Its own, as an evaluation has them.")
    figure: str = Field(description="Name of the gate's metric.")
    difference: float = Field(description="Of the gate's figure, compressed less original.")
    difference_low: float | None
    difference_high: float | None
    top1: float
    kl: float = Field(description="Mean nats per token that the original loses by being replaced.")
    versus_original: dict[str, float] = Field(
        default_factory=dict, description="McNemar's test, where answers are judged."
    )
    passed: bool
    explanation: str = Field(validation_alias=AliasChoices("explanation", "told"))
    model_ref: str | None = Field(default=None, description="Its version in the registry; None when it was withheld.")
    seconds: float


class QuantizedModelRecord(Record):
    """The compressed forms of one model."""

    asset: ClassVar[str] = "quantized_model"
    dataset: str
    recipe: str
    training_key: str
    model_hash: str
    models: list[CompressedModel]
