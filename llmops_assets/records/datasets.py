"""What the datasets stage leaves behind: rows, findings, cleaned rows, splits."""

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, Field

from llmops_assets.records.base import Record, StoredPath


class FileAccount(BaseModel):
    """What became of every line of a raw file (of an array or a table: of every row)."""

    name: str = Field(validation_alias=AliasChoices("name", "file"), description="The registered name of the file.")
    unit: str = Field(description="What is counted: lines or rows.")
    total: int = Field(description="Lines of the file, counted apart from reading them.")
    rows: int
    refused: int
    blank: int = 0
    comments: int = 0
    header: int = 0
    continued: int = Field(default=0, description="Further lines of rows and refusals that go over several.")
    joined: int = Field(default=0, description="Rows that became part of another: the negatives of its anchor.")
    without_line: int = Field(default=0, description="Refusals that are of the file and stand for none of its lines.")
    notes: tuple[str, ...] = Field(default=(), description="What a person should know of how the file was read.")

    @property
    def missing(self) -> int:
        """Lines that became nothing, or less than 0 where something came of no line; 0 in every sound account."""
        counted = self.rows + self.refused - self.without_line + self.blank + self.comments + self.header
        return self.total - counted - self.continued - self.joined


class KeyFate(BaseModel):
    """What became of one key of the raw rows, in how many of them."""

    key: str = Field(description="Its path in a row; all places of a list are one: messages[].weight.")
    fate: Literal["used", "metadata", "refused"]
    rows: int
    characters: float = Field(
        default=0, description="Mean length of the texts in it, of metadata. Records of earlier versions have none."
    )


class DatasetRecord(Record):
    """The canonical rows of one dataset version, and those that could not be read."""

    asset: ClassVar[str] = "dataset"
    dataset: str
    type: str
    manifest: str = Field(description="Manifest id of the canonical rows in the dataset store.")
    quarantine: str | None = Field(description="Manifest id of the refused rows (file, line, field, reason).")
    rows: int
    quarantined: int
    source_bytes: int
    content_hash: str
    accounts: list[FileAccount] = Field(
        default_factory=list, description="What became of every line, by file. Records of earlier versions have none."
    )
    key_fates: list[KeyFate] = Field(
        default_factory=list, description="What became of every key of the rows. Records of earlier versions have none."
    )
    left_out: dict[str, str] = Field(
        default_factory=dict, description="Files of the folders given that are no data: name and reason."
    )


class QualityRecord(Record):
    """Findings of the quality report; every finding lists the rows it was found in."""

    asset: ClassVar[str] = "quality_report"
    dataset: str
    rows: int
    findings: str = Field(description="Manifest id: one row a finding (row_id, kind, detail…).")
    pii: dict[str, int] = Field(description="Spans found by type.")
    spans: str | None = Field(
        default=None,
        description="Manifest id: where personal data is (row_id, column, part, start, end, type, score); its parent "
        "are the rows that were searched. Records of earlier versions have none.",
    )
    detector: str = Field(default="", description="Identity of the detector that found the spans.")
    pii_rows: int
    exact_duplicates: int = Field(description="Rows that repeat an earlier row exactly.")
    near_duplicates: int = Field(description="Rows beyond the first of each near-duplicate cluster.")
    clusters: str = Field(description="Manifest id: row_id, cluster (id), kept (bool).")
    dropped_pairs: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Some rows that repeat another, beside it, with what makes them alike; texts are masked.",
    )
    shared_text: list[dict[str, Any]] = Field(
        default_factory=list, description="Text that many rows share, masked, with how many rows hold it."
    )
    alike_but_apart: dict[str, int] = Field(
        default_factory=dict, description="Pairs as alike as duplicates that say something else, by what differs."
    )
    scores: str = Field(description="Manifest id: row_id, score and its parts.")
    score_mean: float
    toxic_rows: int
    unexamined_rows: int = Field(default=0, description="Rows that a detector failed on; the findings say why.")
    chat_faults: dict[str, int] = Field(description="Rows by chat-format fault; a fault blocks.")
    control_tokens: dict[str, int] = Field(
        default_factory=dict, description="Rows by the control token of a model family that stands in their texts."
    )
    statistics: dict[str, float] = Field(description="Named figures: characters a row, tokens a row, …")
    html: StoredPath | None = Field(default=None, description="Path of the self-contained report.")


class CleanRecord(Record):
    """Masked, deduplicated and filtered rows; every dropped row keeps its reason."""

    asset: ClassVar[str] = "clean_dataset"
    dataset: str
    type: str
    manifest: str
    dropped: str = Field(description="Manifest id: row_id, reason, detail.")
    rows: int
    dropped_by_reason: dict[str, int]
    masked_by_type: dict[str, int]
    clusters: str | None = Field(
        default=None,
        description="Manifest id: row_id, cluster, kept, exact of near duplicates among the clean rows; its parent are "
        "these rows. Records of earlier versions have none.",
    )
    content_hash: str


class SplitsRecord(Record):
    """Train, validation and test rows of one dataset version."""

    asset: ClassVar[str] = "splits"
    dataset: str
    type: str
    manifests: dict[str, str] = Field(description="Manifest id by split: train, validation, test.")
    rows: dict[str, int]
    stratify_by: str | None
    group_by: str | None
    seed: int
    data_hash: str = Field(description="Hash of the rows in all splits; what a training depends on.")
    variants: str | None = Field(
        default=None,
        description="Manifest id: row_id, variants of rows that ask the same in more words; its parent are the rows "
        "that were divided. Records of earlier versions have none.",
    )


class ContaminationRecord(Record):
    """How much of each evaluation suite stands in the training rows of one dataset version; true of these manifests."""

    asset: ClassVar[str] = "contamination"
    dataset: str
    train: str = Field(description="Manifest id of the training rows that were looked through.")
    suites: dict[str, str] = Field(description="Manifest id of the items by suite.")
    judged: dict[str, int] = Field(description="Items that were compared, by suite.")
    too_short: dict[str, int] = Field(
        description="Items that could not be compared, by suite: without any text, or too short before version 2."
    )
    version: int = Field(default=1, description="Rule that items were compared by.")
    leaked: dict[str, int] = Field(
        validation_alias=AliasChoices("leaked", "seen"),
        description="Judged items that stand in training rows, by suite.",
    )
    items: list[dict[str, Any]] = Field(description="Up to twenty of those: suite, item, coverage, row_id, file, line.")

    def share(self, suite: str) -> float:
        """The share of the judged items of a suite that stand in training rows."""
        return self.leaked.get(suite, 0) / max(self.judged.get(suite, 0), 1)
