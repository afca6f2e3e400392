"""What a training leaves behind: its plan, its weights, the servable model."""

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from llmops_assets.records.base import Record, StoredPath


class BaseModelRecord(BaseModel):
    """A model that a training starts from, resolved to a folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    ref: str = Field(description="As the spec names it: hf:…, dataset|recipe, or name@version.")
    family: str
    path: StoredPath
    content_hash: str
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 by file name, to name what changes.")
    parameters: int | None = None


class TemplateFinding(BaseModel):
    """One thing that a chat template does to rows that nobody meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    name: str = Field(description="system_prompt_dropped, header_trained, …")
    text: str = Field(description="The cause, and what to do.")
    blocking: bool = Field(description="What is learned would be wrong.")
    rows: int
    row_ids: list[str] = Field(description="Up to ten of them.")
    example: str = Field(default="", description="Markdown: one of the rows as it is rendered.")


class TrainedModules(BaseModel):
    """The modules of one name that are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    module: str
    how: Literal["adapter", "full"]
    layers: int = Field(description="Modules of that name.")
    parameters: int = Field(description="That are trained, in all of them.")


class PlanRecord(Record):
    """What will run, before a GPU is spent."""

    asset: ClassVar[str] = "training_plan"
    dataset: str
    recipe: str
    training_key: str
    identity: dict[str, str] = Field(
        default_factory=dict, description="All that the key is made of, by part; empty in plans of earlier releases."
    )
    spec: dict[str, Any] = Field(description="The TrainJobSpec, with dataset_ref.")
    base: BaseModelRecord | None
    model_dir: StoredPath = Field(description="Folder of this training: checkpoints/, adapter/, merged/, evaluation/.")
    files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the planned rows' files; none in plans of earlier releases."
    )
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
    findings: list[TemplateFinding] = Field(
        default_factory=list, description="What the chat template does to rows; empty in plans of earlier releases."
    )
    trained: list[TrainedModules] = Field(
        default_factory=list, description="What is trained of the base, by module; empty for one made from nothing."
    )
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
    auxiliary_models: dict[str, BaseModelRecord] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("auxiliary_models", "companions"),
        description="Other models that it needs: reward (RLHF), retriever (RAG_TUNING).",
    )
    pooling: Literal["mean", "cls", "lasttoken"] | None = Field(
        default=None, description="How the encoder (of RAG_TUNING the retriever) makes one vector of a text."
    )
    figures: dict[str, float] = Field(default_factory=dict, description="What only this job type counts in its rows.")
    example: str = Field(description="Markdown: one rendered row with its label mask.")
    template_date: str | None = Field(
        default=None, description="The day that a chat template which asks for today was told, from here to the server."
    )
    watermark: str | None = Field(default=None, description="Commitment to the key whose marks are among the rows.")
    image: str | None = Field(
        default=None, description="What the worker runs in, by content: name@sha256:…; None: a process of this machine."
    )


class CurvePoint(BaseModel):
    """What was measured at one step of a training."""

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
    path: StoredPath
    content_hash: str
    files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the folder's files; none in records of earlier releases."
    )
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
    weight_change_rms: float | None = Field(default=None, description="Of one weight: its root mean square.")
    trained_tensors: int | None = None
    unmoved_tensors: int | None = Field(default=None, description="Trained tensors that did not change at all.")
    check_seconds: float | None = Field(
        default=None, description="Of the worker: hashes of what it read, the weights before and after, the saved file."
    )
    moved_by_module: dict[str, float] = Field(
        default_factory=dict, description="weight_change_rms by kind of module; none in records of earlier releases."
    )
    non_finite_weights: int
    mlflow_run_id: str | None
    figures: dict[str, float | None] = Field(default_factory=dict, description="What only this job type measures.")
    image: str | None = Field(default=None, description="The image that trained it, as the plan has it.")


LEAST_BELOW_GUESSING = 0.25
"""Nats a token below guessing from which on a base knows something of the texts; one of random weights has none."""


class BaseReading(BaseModel):
    """How well a base predicts the texts of a plan's rows before it was trained on them."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    loss: float = Field(description="Nats a token.")
    guessing: float = Field(description="Nats a token of whoever guesses: the logarithm of the vocabulary's size.")
    tokens: int
    exchanged: list[int] | None = Field(
        default=None, description="Two layers that, put into each other's place, make it predict the texts better."
    )
    exchanged_loss: float | None = Field(default=None, description="Nats a token then.")

    @property
    def guesses(self) -> bool:
        """Whether it predicts the texts no better than whoever guesses."""
        return self.loss > self.guessing - LEAST_BELOW_GUESSING

    @property
    def guess(self) -> str:
        """What is to be said of a base that guesses."""
        return (
            f"the base itself predicts the texts of these rows no better than guessing ({self.loss:.1f} nats a token; "
            f"guessing has {self.guessing:.1f}): it never saw this language, it was never trained, or its tokenizer or "
            "its weights are not those that were trained together. Compare tokenizer.json and the weights with where "
            "they are from, or choose another base"
        )


class MergedModelRecord(Record):
    """The servable model, and how far it is from base + adapter."""

    asset: ClassVar[str] = "merged_model"
    dataset: str
    recipe: str
    training_key: str
    path: StoredPath
    content_hash: str
    family: str
    parameters: int
    chat_template_hash: str | None
    max_logit_difference: float | None = Field(description="Merged against base + adapter; None for method full.")
    top1_agreement: float | None
    mean_kl: float | None = Field(default=None, description="Merged from base + adapter, nats a token.")
    differs_from_base: bool
    saved_difference: float | None = Field(
        default=None, description="Of the loss on the probes, nats a token: the weights as saved from those in memory."
    )
    reference_difference: float | None = Field(
        default=None,
        description="Of the loss on the probes, nats a token: what a policy was held to from its base. None where it "
        "was held to nothing, or to a base in four bits.",
    )
    base_kl: float | None = Field(
        default=None, description="Divergence of the model from its base on the probes, nats a token; None without one."
    )
    base_reading: BaseReading | None = Field(
        default=None, description="None where there is no base, it is an encoder, or the record of an earlier release."
    )
    adapter_kl: float | None = Field(
        default=None, description="Divergence of base + adapter from the base, nats a token; None for method full."
    )
    reloads: bool
    faults: list[str] = Field(default_factory=list, description="What is not whole in the folder, a sentence each.")
    merge_key: str | None = Field(default=None, description="Names weights, code and libraries that it was made by.")
    figures: dict[str, float | str] = Field(
        default_factory=dict,
        description="What only this job type measures: of an index its passages, of an encoder its dimensions.",
    )
