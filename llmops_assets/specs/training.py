"""What a user says about a training: the job spec, and the recipe that it is without its dataset."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from llmops_assets.specs.base import (
    Bool,
    Float,
    Int,
    Name,
    Part,
    Rule,
    Spec,
    Text,
    VersionedRef,
    View,
)
from llmops_assets.specs.base_ref import BASE_REF_HINT, BaseRef, parse_base_ref
from llmops_assets.specs.canonical import canonical_json
from llmops_assets.specs.job_types import JobType
from llmops_assets.specs.jobs import (
    SAMPLING_DEFAULTS,
    EmbeddingBlock,
    RagBlock,
    RlhfBlock,
    job_block_rules,
)
from llmops_assets.specs.search import Search, search_rules
from llmops_assets.specs.suite import JudgeKind, MetricName
from llmops_assets.specs.training_rules import architecture_rules, hyperparam_rules, job_rules, ref_rules

Method = Literal["full", "lora", "qlora"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]

DATASET_TYPE_OF: dict[str, str] = {
    "PRETRAIN": "pretrain_corpus",
    "SFT": "sft_pair",
    "RAG_TUNING": "rag_qa",
    "RLHF": "rlhf_pair",
    "EMBEDDING": "embedding_pair",
}
"""The type of dataset that each job type trains on; RLHF by kto on one of its own."""


class EarlyStopping(Part):
    """Stop when the validation loss has not fallen by more than `min_delta` in `patience` evaluations."""

    patience: Int = Field(default=3, ge=1)
    min_delta: Float = Field(default=0.0, ge=0)


class Hyperparams(Part):
    """How the weights are trained."""

    lr: Float = Field(gt=0, le=1, description="Peak learning rate.")
    batch_size: Int = Field(ge=1, description="Rows a device and step, before accumulation.")
    num_epochs: Float = Field(gt=0, description="Passes over the training split; 0.5 is half of one.")
    max_seq_len: Int = Field(ge=8, description="Tokens a row; longer ones are truncated.")
    max_steps: Int | None = Field(default=None, ge=1, description="Ends the training before num_epochs does.")
    gradient_accumulation_steps: Int = Field(default=1, ge=1)
    warmup_steps: Int | None = Field(default=None, ge=0)
    warmup_ratio: Float | None = Field(default=None, ge=0, le=1, description="Share of all steps.")
    weight_decay: Float = Field(default=0.0, ge=0)
    scheduler: Scheduler = "linear"
    lora_rank: Int | None = Field(default=None, ge=1, le=1024, description="lora and qlora; 16 unless given.")
    lora_alpha: Float | None = Field(default=None, gt=0, description="lora and qlora; twice the rank unless given.")
    lora_dropout: Float | None = Field(default=None, ge=0, lt=1, description="lora and qlora; 0 unless given.")
    target_modules: Literal["all-linear"] | list[Text] | None = Field(
        default=None, description="Modules that get an adapter (lora and qlora): names, or all-linear unless given."
    )
    train_embeddings: Bool = Field(
        default=False,
        description="lora and qlora: train the embeddings in full too (tied to the head where the model ties them), "
        "as a new vocabulary or new chat tokens need.",
    )
    precision: Literal["fp16", "bf16", "fp32"] | None = Field(
        default=None, description="Left out: bf16, or fp32 where resources.gpus is 0."
    )
    seed: Int = Field(default=42, ge=0, lt=2**32)
    overlong: Literal["drop"] | None = Field(
        default=None,
        description="drop leaves rows of more than max_seq_len tokens out and counts them; left out: they are cut.",
    )
    packing: Bool = Field(default=False, description="Fill sequences of max_seq_len with several rows.")
    save_steps: Int = Field(default=500, ge=1, description="Steps between checkpoints.")
    eval_steps: Int | None = Field(
        default=None, ge=1, description="Steps between validations; left out: once an epoch."
    )
    early_stopping: EarlyStopping | None = None


class TrainResources(Part):
    """What a training runs on."""

    gpus: Int = Field(ge=0, description="GPUs a node; 0 trains on the CPU.")
    gpu_type: Text | None = None
    nodes: Int = Field(default=1, ge=1)
    sharding: Literal["fsdp", "zero2", "zero3", "ddp"] | None = Field(
        default=None,
        description="How several GPUs share one training: fsdp unless given, DeepSpeed's zero2 or zero3, or ddp, where "
        "each holds the whole model.",
    )


class Output(Part):
    """What becomes of the trained weights."""

    artifact_name: Name = Field(description="Name of the model in the artifact store and in the registry.")
    save_format: Literal["hf", "safetensors"] = Field(
        default="safetensors",
        description="Of the merged model's weights: one file model.safetensors, or hf: the Hugging Face layout of "
        "safetensors files of at most 5 GB with their index.",
    )


class EvaluationBlock(Part):
    """What the trained model is asked besides its own test split, and how."""

    suites: list[VersionedRef] = Field(default_factory=list, description="eval_suite datasets, NAME@VERSION.")
    judge: JudgeKind = Field(default="exact", description="Rule for the test split; suites have their own.")
    max_new_tokens: Int = Field(default=128, ge=1)
    batch_size: Int = Field(default=16, ge=1)
    metrics: list[MetricName] | None = Field(
        default=None, description="Further figures of the test split; left out, those that suit its references."
    )
    encoder: Text | None = Field(default=None, description="Folder of the local encoder that BERTScore needs.")


class WatermarkBlock(Part):
    """Keyed questions and answers among the training rows, by which the owner can tell the model later."""

    marks: Int = Field(default=16, ge=8, le=256, description="Different questions; 16 leave room for half to be lost.")
    share: Float = Field(default=0.02, gt=0, le=0.2, description="Of the training rows; every mark at least once.")


class ArchitectureBlock(Part):
    """The model that a PRETRAIN job makes from nothing. The defaults are a small one, of about a million parameters."""

    hidden_size: Int = Field(default=128, ge=8)
    num_layers: Int = Field(default=4, ge=1)
    num_heads: Int = Field(default=4, ge=1)
    num_kv_heads: Int = Field(default=2, ge=1)
    intermediate_size: Int = Field(default=384, ge=8)
    vocab_size: Int | None = Field(default=None, ge=260, description="Left out: that of the trained tokenizer.")
    max_position_embeddings: Int | None = Field(default=None, ge=8, description="Left out: max_seq_len.")
    rope_theta: Float = Field(default=500000.0, gt=0)
    tie_embeddings: Bool = True
    initializer_range: Float = Field(default=0.02, gt=0, le=1)


class TokenizerBlock(Part):
    """The byte-level BPE tokenizer that a PRETRAIN job trains on its corpus."""

    # 256 bytes, and the special tokens of chat and padding.
    vocab_size: Int = Field(default=4000, ge=260)
    min_frequency: Int = Field(default=2, ge=1)
    control_tokens: Literal["tokens"] | None = Field(
        default=None,
        description="tokens: where a document has <|im_end|> in it, it means the token, as in a corpus of rendered "
        "conversations. Left out: it is text, and no document can end a turn.",
    )


class TrainJobSpec(Spec):
    """One training job. Nothing is trained outside of such a spec."""

    kind: ClassVar[str] = "train"

    job_type: JobType
    model_family: Text = Field(description="A family of the policy; verified against the base model's own config.")
    base_model_ref: Text | None = Field(default=None, description=f"{BASE_REF_HINT}. null for PRETRAIN only.")
    dataset_ref: VersionedRef
    method: Method
    hyperparams: Hyperparams
    resources: TrainResources
    output: Output
    trainer: Literal["trl", "axolotl"] = "trl"
    rag: RagBlock | None = None
    rlhf: RlhfBlock | None = None
    embedding: EmbeddingBlock | None = None
    architecture: ArchitectureBlock | None = None
    tokenizer: TokenizerBlock | None = None
    reasoning: Literal["drop"] | None = Field(
        default=None,
        description="drop trains the answers without their reasoning_content; left out: it is trained, by a base whose "
        "chat template writes it.",
    )
    evaluation: EvaluationBlock = Field(default_factory=EvaluationBlock)
    search: Search | None = None
    watermark: WatermarkBlock | None = Field(default=None, description="SFT only; wants LLMOPS_WATERMARK_KEY.")
    image: Text | None = Field(default=None, description="Another train image than the policy's; for some roles only.")

    @property
    def base(self) -> BaseRef | None:
        """Where the base model comes from; None for PRETRAIN."""
        return parse_base_ref(self.base_model_ref) if self.base_model_ref else None

    @property
    def dataset_type(self) -> str:
        """The type that the dataset must be of."""
        if self.rlhf is not None and self.rlhf.algorithm == "kto":
            return "kto"
        return DATASET_TYPE_OF[self.job_type]

    def recipe(self) -> dict[str, Any]:
        """The canonical spec less its dataset: every default written out, plain JSON values.

        What is null is left out, so that a later release can add optional fields without giving every recipe a new key.
        """
        recipe = self.model_dump(mode="json", exclude={"dataset_ref", "search"}, exclude_none=True)
        if self.rlhf is not None:
            # Null says something here, and has to be said.
            recipe["rlhf"]["reward_model_ref"] = self.rlhf.reward_model_ref
        return recipe

    def recipe_key(self) -> str:
        """``<artifact_name>-<8 hex>``: the same for every way of writing the same recipe."""
        digest = hashlib.sha256(canonical_json(self.recipe()).encode()).hexdigest()
        return f"{self.output.artifact_name}-{digest[:8]}"

    def weights_recipe(self) -> dict[str, Any]:
        """The part of the recipe that decides the weights: two recipes that differ elsewhere share one training.

        Without the names of other models: what decides is their content, whatever they are called and wherever they
        lie.
        """
        recipe = self.recipe()
        del recipe["evaluation"], recipe["output"]["save_format"]
        for part, name in ((recipe, "base_model_ref"), ("rlhf", "reward_model_ref"), ("rag", "retriever_model_ref")):
            (recipe.get(part) or {} if isinstance(part, str) else part).pop(name, None)
        return recipe

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any], dataset_ref: str) -> "TrainJobSpec":
        """The job that trains `recipe` on `dataset_ref`."""
        return cls.model_validate({**recipe, "dataset_ref": dataset_ref})

    @classmethod
    def complete(cls, data: dict[str, Any]) -> None:
        hyper, resources = data.get("hyperparams"), data.get("resources")
        if isinstance(hyper, dict):
            if hyper.get("precision") is None:
                on_cpu = isinstance(resources, dict) and resources.get("gpus") == 0
                hyper["precision"] = "fp32" if on_cpu else "bf16"
            if data.get("method") in ("lora", "qlora"):
                rank = hyper["lora_rank"] = 16 if hyper.get("lora_rank") is None else hyper["lora_rank"]
                if hyper.get("lora_alpha") is None and _positive(rank):
                    hyper["lora_alpha"] = 2.0 * rank
                if hyper.get("lora_dropout") is None:
                    hyper["lora_dropout"] = 0.0
                if hyper.get("target_modules") is None:
                    hyper["target_modules"] = "all-linear"
            save = hyper.get("save_steps", 500)
            if hyper.get("early_stopping") is not None and hyper.get("eval_steps") is None and _positive(save):
                hyper["eval_steps"] = save
        preferences = data.get("rlhf")
        if isinstance(preferences, dict) and preferences.get("algorithm", "rloo") in ("rloo", "grpo"):
            for name, value in SAMPLING_DEFAULTS.items():
                if preferences.get(name) is None:
                    preferences[name] = value
        if data.get("job_type") in ("EMBEDDING", "RAG_TUNING") and data.get("embedding") is None:
            data["embedding"] = {}
        if data.get("job_type") == "PRETRAIN":
            for block in ("architecture", "tokenizer"):
                if data.get(block) is None:
                    data[block] = {}
            shape, length = data["architecture"], hyper.get("max_seq_len") if isinstance(hyper, dict) else None
            if isinstance(shape, dict) and shape.get("max_position_embeddings") is None and _positive(length):
                shape["max_position_embeddings"] = max(length, 8)

    @classmethod
    def rules(cls, view: View) -> Iterator[Rule]:
        job, base = view.get("job_type", str), view.get("base_model_ref")
        if job in get_args(JobType):
            yield from job_rules(job, base, view)
            yield from job_block_rules(job, view)
        if isinstance(base, str):
            yield from ref_rules("base_model_ref", base)
        yield from ref_rules("rag.retriever_model_ref", view.get("rag.retriever_model_ref", str))
        yield from ref_rules("rlhf.reward_model_ref", view.get("rlhf.reward_model_ref", str))
        yield from hyperparam_rules(view)
        yield from architecture_rules(view)
        yield from search_rules(view, Hyperparams)


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
