"""What a day of traffic leaves behind."""

from typing import ClassVar

from pydantic import Field

from llmops_assets.records.base import Record


class TrafficRecord(Record):
    """A day of an endpoint, as it was when it was compacted."""

    asset: ClassVar[str] = "traffic"
    endpoint: str
    day: str = Field(description="YYYY-MM-DD, UTC.")
    file: str = Field(description="Below the artifact root.")
    requests: int
    users: int
    rated: int
    corrected: int
    failed: int
    masked_again: int = Field(description="Texts in which today's rules found what those of the day did not.")
    is_whole: bool = Field(description="Whether the day was over.")
    gaps: dict[str, int] = Field(default_factory=dict, description="Entries of the log that are missing, by worker.")
