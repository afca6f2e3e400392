"""What retrieval leaves behind: an index of passages, how well it finds them, and what it was built with."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmops_assets.records.base import Record, StoredPath
from llmops_assets.records.evaluation import Metric


class IndexEncoder(BaseModel):
    """The encoder that made an index's vectors, and has to make those of the questions too."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    ref: str = Field(description="As it was named: NAME@VERSION of the registry, or DATASET|RECIPE of a training.")
    path: StoredPath = Field(description="Folder, as sentence-transformers reads it.")
    content_hash: str
    query_prompt: str = ""
    passage_prompt: str = ""


class IndexFacts(BaseModel):
    """One immutable version of an index: what it holds, and what made it; `version` is the hash of both."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    version: str
    dataset: str
    recipe: str
    encoder: IndexEncoder
    passages: int
    dimensions: int
    sparse: str = Field(description="How sparse vectors are made: analyser and weights.")
    average_terms: float = Field(description="Terms of a passage on average, which BM25 measures lengths by.")
    files: dict[str, str] = Field(description="SHA-256 of each file before it is sealed.")
    reduced_by: int | None = Field(default=None, description="The erasure that took passages out of it.")


class RetrievalIndexRecord(Record):
    """The index of a dataset version's passages by one retriever, and how well it finds them."""

    asset: ClassVar[str] = "retrieval_index"
    dataset: str
    recipe: str
    name: str = Field(description="The alias that endpoints search under.")
    version: str
    encoder: IndexEncoder
    passages: int
    documents: int
    dimensions: int
    reused_vectors: int = Field(description="Vectors that a build which was cut off had made already.")
    left_out: dict[str, int] = Field(default_factory=dict, description="Passages that are not in it, by reason.")
    questions: int = Field(description="Test questions that it was asked.")
    metrics: list[Metric] = Field(default_factory=list)
    exact_agreement: float = Field(description="Share of the exactly nearest ten that the engine finds.")
    engine: str = Field(description="embedded, or the address of the Qdrant server.")
    seconds: dict[str, float] = Field(default_factory=dict, description="Time by step.")
    previous: str | None = Field(default=None, description="The version that the alias named before.")
    settings: dict[str, Any] = Field(default_factory=dict)
