"""What is left of rows that a model wrote about documents."""

from typing import ClassVar

from pydantic import Field

from llmops_assets.records.base import Record


class QuestionAnswersRecord(Record):
    """Rows that a model wrote about registered documents, before they are ingested."""

    asset: ClassVar[str] = "question_answers"
    dataset: str
    generated: str = Field(description="Manifest id: one row a generated row, with its provenance.")
    quarantine: str | None = Field(description="Manifest id: rows, passages and documents that came to nothing.")
    documents: int
    unreadable_documents: int
    passages: int
    failed_passages: int
    reused_passages: int = Field(description="Answered by an earlier run, and not asked again.")
    rows: int = Field(description="Rows that are handed on.")
    ungrounded_rows: int
    groundedness_mean: float
    without_provenance: int
    model: str
    template: str
    content_hash: str
