"""What a replay leaves behind."""

from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from llmops_assets.records.base import Record


class ChangedAnswer(BaseModel):
    """A request whose answer changed; personal data are masked in all texts."""

    request_id: str
    question: str
    then: str
    now: str
    win: float = Field(description="1: the candidate's is better, 0: worse, 0.5: neither.")
    judged_by: str
    change: float = Field(description="0: alike, 1: nothing is the same.")
    personal: list[str] = Field(default_factory=list)


class ReplayRecord(Record):
    """An endpoint's last requests, asked of a candidate."""

    asset: ClassVar[str] = "replay_report"
    endpoint: str
    model_ref: str
    content_hash: str
    at: datetime
    days: list[str]
    rules: dict[str, Any] = Field(description="`serving.replay` of the policy that it was made by.")
    left_out: dict[str, int] = Field(default_factory=dict, description="Requests that were not asked, by reason.")
    note: str = ""
    tokens_reserved: int = 0
    tokens_used: int = 0
    pairs: int = 0
    users: int = 0
    in_conversations: int = Field(default=0, description="Requests that were asked with the turns before them.")
    won: int = 0
    lost: int = 0
    win_share: float | None = Field(default=None, description="Mean over users; ties are half.")
    low: float | None = None
    high: float | None = None
    p_always_valid: float | None = None
    judged_by: dict[str, int] = Field(default_factory=dict)
    models_then: list[str] = Field(default_factory=list)
    refusals_then: int = 0
    refusals_now: int = 0
    refusals_p: float = 1.0
    empty_then: int = 0
    empty_now: int = 0
    cut_then: int = 0
    cut_now: int = 0
    length_then: float = 0.0
    length_now: float = 0.0
    latency_ms_then: float | None = None
    latency_ms_now: float | None = None
    personal: int = 0
    changed_most: list[ChangedAnswer] = Field(default_factory=list)
