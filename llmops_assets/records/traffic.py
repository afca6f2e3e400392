"""What a day of traffic leaves behind."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

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
    refused: dict[str, int] = Field(
        default_factory=dict, description="Requests that reached no model, by reason; they are not among `requests`."
    )
    masked_again: int = Field(description="Texts in which today's rules found what those of the day did not.")
    is_whole: bool = Field(description="Whether the day was over.")
    gaps: dict[str, int] = Field(default_factory=dict, description="Entries of the log that are missing, by worker.")


class JudgedAnswer(BaseModel):
    """What a judge says of one answer, and what people say of it where they do; no word of either."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    request_id: str
    model_ref: str
    good: bool | None = Field(description="By the judge; null where it said neither.")
    sampled: bool = Field(description="Whether it is of the sample, or judged only because people had.")
    people: bool | None = None


class JudgedTrafficRecord(Record):
    """A sample of a day of an endpoint as another model judged it."""

    asset: ClassVar[str] = "judged_traffic"
    endpoint: str
    day: str
    judge: str
    requests: int
    share: float = Field(description="Of the answers, that were to be judged.")
    verdicts: list[JudgedAnswer]
