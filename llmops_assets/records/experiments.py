"""What an experiment leaves behind."""

from datetime import datetime
from typing import Any, ClassVar, Literal

from llmops_assets.records.base import Record


class AbReportRecord(Record):
    """The state of an experiment, and its decision once there is one."""

    asset: ClassVar[str] = "ab_report"
    experiment: str
    decision: Literal["continue", "promote", "rollback", "no_difference", "inconclusive", "invalid"]
    reason: str
    users: dict[str, int]
    exposures: dict[str, int]
    figures: dict[str, Any]
    decided_at: datetime | None
