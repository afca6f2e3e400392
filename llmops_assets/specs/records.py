"""What each asset leaves behind for the ones after it: one typed record per asset, kept as JSON by partition."""

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """A record is immutable; `asset` is the name of the asset whose partitions it describes."""

    # A diverged training has figures that are no numbers; its record must be readable all the same.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants", defer_build=True)
    asset: ClassVar[str]


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


class QualityRecord(Record):
    """Findings of the quality report; every finding lists the rows it was found in."""

    asset: ClassVar[str] = "quality_report"
    dataset: str
    rows: int
    findings: str = Field(description="Manifest id: one row a finding (row_id, kind, detail…).")
    pii: dict[str, int] = Field(description="Spans found by type.")
    pii_rows: int
    exact_duplicates: int = Field(description="Rows that repeat an earlier row exactly.")
    near_duplicates: int = Field(description="Rows beyond the first of each near-duplicate cluster.")
    clusters: str = Field(description="Manifest id: row_id, cluster (id), kept (bool).")
    scores: str = Field(description="Manifest id: row_id, score and its parts.")
    score_mean: float
    toxic_rows: int
    chat_faults: dict[str, int] = Field(description="Rows by chat-format fault; a fault blocks.")
    statistics: dict[str, float] = Field(description="Named figures: characters a row, tokens a row, …")
    html: str | None = Field(default=None, description="Path of the self-contained report.")


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


class ContaminationRecord(Record):
    """How much of each evaluation suite stands in the training rows of one dataset version; true of these manifests."""

    asset: ClassVar[str] = "contamination"
    dataset: str
    train: str = Field(description="Manifest id of the training rows that were looked through.")
    suites: dict[str, str] = Field(description="Manifest id of the items by suite.")
    judged: dict[str, int] = Field(description="Items that are long enough to be judged, by suite.")
    too_short: dict[str, int]
    seen: dict[str, int] = Field(description="Judged items that stand in training rows, by suite.")
    items: list[dict[str, Any]] = Field(description="Up to twenty of those: suite, item, coverage, row_id, file, line.")

    def share(self, suite: str) -> float:
        """The share of the judged items of a suite that stand in training rows."""
        return self.seen.get(suite, 0) / max(self.judged.get(suite, 0), 1)


class BaseModelRecord(BaseModel):
    """A model that a training starts from, resolved to a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    ref: str = Field(description="As the spec names it: hf:…, dataset|recipe, or name@version.")
    family: str
    path: str
    content_hash: str
    parameters: int | None = None


class PlanRecord(Record):
    """What will run, before a GPU is spent."""

    asset: ClassVar[str] = "training_plan"
    dataset: str
    recipe: str
    training_key: str
    spec: dict[str, Any] = Field(description="The TrainJobSpec, with dataset_ref.")
    base: BaseModelRecord | None
    model_dir: str = Field(description="Folder of this training: checkpoints/, adapter/, merged/, evaluation/.")
    rows: dict[str, int]
    tokens: int = Field(description="Tokens of one epoch after template and truncation.")
    trainable_tokens: int = Field(description="Tokens of one epoch that carry loss.")
    rows_without_trainable_tokens: int
    truncated_rows: int
    cut_answers: int = Field(description="Rows whose answer was cut by max_seq_len.")
    dropped_rows: int = Field(default=0, description="Rows left out because they are longer than max_seq_len.")
    double_bos_rows: int
    stop_token: str | None
    stop_token_trained: bool
    chat_template_hash: str | None
    prefix_preserving: bool = Field(description="Answers are trained behind exactly what a server puts before them.")
    packing_efficiency: float = Field(description="Share of the tokens of a padded epoch that are no padding.")
    failures: dict[str, list[str]] = Field(description="Up to ten row ids for each thing that is wrong.")
    steps: int
    precision: Literal["fp32", "bf16", "fp16"] = Field(description="Of the computation on the device found.")
    gradient_checkpointing: bool
    memory_bytes: int
    memory_available: int = Field(description="Bytes of the device; 0 when it does not tell.")
    memory_advice: str | None = Field(description="What to change when it does not fit.")
    memory_smaller: str = Field(default="", description="Settings that need less, for when it runs out all the same.")
    on_gpu_type: dict[str, Any] | None = Field(
        default=None,
        description="Needs on the GPU type of the spec: gpu, needed, available, seconds, advice.",
    )
    seconds: float | None
    device: str
    companions: dict[str, BaseModelRecord] = Field(
        default_factory=dict, description="Other models that it needs: reward (RLHF), retriever (RAG_TUNING)."
    )
    pooling: Literal["mean", "cls", "lasttoken"] | None = Field(
        default=None, description="How the encoder (of RAG_TUNING the retriever) makes one vector of a text."
    )
    figures: dict[str, float] = Field(default_factory=dict, description="What only this job type counts in its rows.")
    example: str = Field(description="Markdown: one rendered row with its label mask.")
    watermark: str | None = Field(default=None, description="Commitment to the key whose marks are among the rows.")
    image: str | None = Field(
        default=None, description="What the worker runs in, by content: name@sha256:…; None: a process of this machine."
    )


class CurvePoint(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    step: int
    loss: float | None = None
    eval_loss: float | None = None
    reward: float | None = None
    kl: float | None = Field(default=None, description="Divergence from the reference, nats a token.")
    accuracy: float | None = Field(default=None, description="Share of preference pairs told apart.")


class AdapterRecord(Record):
    """Trained weights: an adapter, or the full weights when the method is `full`."""

    asset: ClassVar[str] = "adapter"
    dataset: str
    recipe: str
    training_key: str
    method: Literal["full", "lora", "qlora"]
    path: str
    content_hash: str
    steps: int
    best_step: int | None = Field(default=None, description="With early stopping: the step whose weights these are.")
    resumed_from: int | None = Field(description="Step of the checkpoint this run went on from.")
    reused: bool = Field(description="The weights were already there; nothing was trained.")
    first_loss: float
    last_loss: float
    eval_loss: float | None
    seconds: float
    tokens_per_second: float | None
    peak_memory_bytes: int | None
    curve: list[CurvePoint]
    weight_change: float = Field(description="L2 norm of the change against the initialisation.")
    non_finite_weights: int
    mlflow_run_id: str | None
    figures: dict[str, float | None] = Field(default_factory=dict, description="What only this job type measures.")
    image: str | None = Field(default=None, description="The image that trained it, as the plan has it.")


class MergedModelRecord(Record):
    """The servable model, and how far it is from base + adapter."""

    asset: ClassVar[str] = "merged_model"
    dataset: str
    recipe: str
    training_key: str
    path: str
    content_hash: str
    family: str
    parameters: int
    chat_template_hash: str | None
    max_logit_difference: float | None = Field(description="Merged against base + adapter; None for method full.")
    top1_agreement: float | None
    mean_kl: float | None = Field(default=None, description="Merged from base + adapter, nats a token.")
    differs_from_base: bool
    reloads: bool
    figures: dict[str, float | str] = Field(
        default_factory=dict,
        description="What only this job type measures: of an index its passages, of an encoder its dimensions.",
    )


class Metric(BaseModel):
    """One figure with its 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    suite: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    model: Literal["tuned", "base", "production"] = "tuned"


class Difference(BaseModel):
    """The model against another one on the same items of one suite."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    suite: str
    against: Literal["base", "production"]
    ref: str
    only_tuned: int = Field(description="Items that only this model has right.")
    only_other: int
    both: int
    neither: int
    p: float = Field(description="McNemar's test, two-sided.")
    test: str = Field(description="exact, or chi-squared with continuity correction.")
    difference: float = Field(description="Accuracy of this model less that of the other.")
    low: float
    high: float
    changed: int = Field(description="Items with another answer.")


class EvaluationRecord(Record):
    """Scores of one model on the test split and on every suite of its recipe, with its base beside it."""

    asset: ClassVar[str] = "evaluation"
    dataset: str
    recipe: str
    training_key: str
    model_hash: str
    metrics: list[Metric]
    empty_answers: int
    length_truncated: int
    by_category: dict[str, Metric]
    answers: str = Field(
        description="Path of the answers (JSONL: id, suite, category, prompt, expected, got, correct)."
    )
    seconds: float
    items: dict[str, int] = Field(default_factory=dict, description="Items asked, by suite.")
    answered: dict[str, int] = Field(default_factory=dict, description="Items that got an answer, by suite.")
    refusals: int = Field(default=0, description="Answers that decline to answer where the reference does not.")
    baseline: str = Field(default="", description="What the model was compared with, or why with nothing.")
    versus_base: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="McNemar's test by suite: only_tuned, only_base, both, neither (items right), p.",
    )
    differences: list[Difference] = Field(
        default_factory=list, description="Against the base and the model in production, by suite."
    )
    general: list[str] = Field(default_factory=list, description="Suites that measure general ability.")
    seen: dict[str, float] = Field(
        default_factory=dict,
        description="Share of a suite's items that stand in rows which the model, or one that it was made from, was "
        "trained on; suites of which none does are left out.",
    )
    judges: dict[str, str] = Field(default_factory=dict, description="Rule by which answers are judged, by suite.")
    position_flips: int = Field(default=0, description="Verdicts of an LLM judge that changed with the order.")
    unjudged: int = Field(default=0, description="Answers that an LLM judge gave no verdict on; they count as wrong.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="What the figures depend on: engine, decoding, precision, seed, hashes."
    )
    report: str | None = Field(default=None, description="Path of the self-contained report.")

    def metric(self, suite: str, name: str, model: str = "tuned") -> Metric | None:
        return next((m for m in self.metrics if (m.suite, m.name, m.model) == (suite, name, model)), None)


class RegisteredModelRecord(Record):
    """A version in the MLflow registry."""

    asset: ClassVar[str] = "registered_model"
    dataset: str
    recipe: str
    name: str
    version: int
    path: str
    content_hash: str
    family: str
    job_type: str
    mlflow_run_id: str | None
    card: str = Field(description="Path of the model card (Markdown).")
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
    told: str
    passed: bool
    at: datetime


class CompressedModel(BaseModel):
    """One model with fewer bits, measured against the one that it was made of."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    scheme: str
    path: str
    content_hash: str
    answers: str = Field(default="", description="Path of its answers, as an evaluation has them.")
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
    told: str
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
    left: list[str] = Field(default_factory=list, description="What could not be stopped, with the reason.")


class AbReportRecord(Record):
    """The state of an experiment, and its decision once there is one."""

    asset: ClassVar[str] = "ab_report"
    experiment: str
    decision: Literal["continue", "promote", "rollback", "inconclusive", "invalid"]
    reason: str
    users: dict[str, int]
    exposures: dict[str, int]
    figures: dict[str, Any]
    decided_at: datetime | None


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
