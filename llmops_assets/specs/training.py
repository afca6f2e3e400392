"""What a user says about a training: the job spec, and the recipe that it is without its dataset."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field

from llmops_assets.specs.base import (
    NAME_PATTERN,
    REF_PATTERN,
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
from llmops_assets.specs.canonical import canonical_json
from llmops_assets.specs.jobs import (
    SAMPLING_DEFAULTS,
    EmbeddingBlock,
    RagBlock,
    RlhfBlock,
    job_block_rules,
)
from llmops_assets.specs.policy import JobType
from llmops_assets.specs.search import Search, search_rules
from llmops_assets.specs.suite import JudgeKind, MetricName

Method = Literal["full", "lora", "qlora"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup"]
LORA_FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules")

DATASET_TYPE_OF: dict[str, str] = {
    "PRETRAIN": "pretrain_corpus",
    "SFT": "sft_pair",
    "RAG_TUNING": "rag_qa",
    "RLHF": "rlhf_pair",
    "EMBEDDING": "embedding_pair",
}
"""The type of dataset that each job type trains on; RLHF by kto on one of its own."""


@dataclass(frozen=True)
class BaseRef:
    """Where a base model comes from.

    `source` is ``hf`` (a local folder or a hub id in `name`), ``training`` (`dataset` and `recipe` of an earlier
    one), ``registry`` (`name` and a version or alias in `version`) or ``name`` (a registered base model).
    """

    source: Literal["hf", "training", "registry", "name"]
    name: str = ""
    version: str = ""
    dataset: str = ""
    recipe: str = ""

    @property
    def training_key(self) -> str:
        return f"{self.dataset}|{self.recipe}"


def parse_base_ref(ref: str) -> BaseRef:
    """Read a base_model_ref: ``hf:PATH_OR_ID``, ``DATASET@VERSION|RECIPE``, ``NAME@VERSION``, ``NAME@ALIAS``, ``NAME``.

    Raises ValueError when it is none of these.
    """
    if ref.startswith("hf:") and ref.removeprefix("hf:").strip():
        return BaseRef("hf", name=ref.removeprefix("hf:").strip())
    if "|" in ref:
        dataset, _, recipe = ref.partition("|")
        if re.fullmatch(REF_PATTERN, dataset) and re.fullmatch(NAME_PATTERN, recipe):
            return BaseRef("training", dataset=dataset, recipe=recipe)
    elif re.fullmatch(REF_PATTERN, ref):
        name, _, version = ref.partition("@")
        return BaseRef("registry", name=name, version=version)
    elif re.fullmatch(NAME_PATTERN, ref):
        return BaseRef("name", name=ref)
    raise ValueError(f"{ref!r} names no model")


BASE_REF_HINT = (
    "Write hf:<folder or hub id>, <dataset>@<version>|<recipe> of an earlier training, "
    "<name>@<version or alias> of the registry, or the name of a registered base model"
)


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
            yield from _job_rules(job, base, view)
            yield from job_block_rules(job, view)
        if isinstance(base, str):
            yield from _ref_rules("base_model_ref", base)
        yield from _ref_rules("rag.retriever_model_ref", view.get("rag.retriever_model_ref", str))
        yield from _ref_rules("rlhf.reward_model_ref", view.get("rlhf.reward_model_ref", str))
        yield from _hyperparam_rules(view)
        yield from _architecture_rules(view)
        yield from search_rules(view, Hyperparams)


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _job_rules(job: str, base: object, view: View) -> Iterator[Rule]:
    method = view.get("method", str)
    if job == "PRETRAIN":
        if base is not None:
            yield "base_model_ref", "a PRETRAIN job starts from nothing", "Remove it, or choose another job_type"
        if method in ("lora", "qlora"):
            yield "method", f"PRETRAIN trains every weight, {method} does not", "Write method: full"
    elif base is None:
        yield "base_model_ref", f"required for {job}", BASE_REF_HINT
    blocks = {
        "rag": "RAG_TUNING",
        "rlhf": "RLHF",
        "architecture": "PRETRAIN",
        "tokenizer": "PRETRAIN",
    }
    for block, owner in blocks.items():
        if job == owner and view.get(block) is None:
            example = {
                "rag": "rag: {retriever_type: dense, retriever_model_ref: …}",
                "rlhf": "rlhf: {reward_model_ref: …, kl_coeff: 0.1, ppo_steps: 1000}",
            }.get(block, f"{block}: {{}}")
            yield block, f"required for {job}", f"Add {example}"
        elif job != owner and view.get(block) is not None:
            yield block, f"only for {owner}, but job_type is {job}", "Remove the block"
    if job not in ("EMBEDDING", "RAG_TUNING") and view.get("embedding") is not None:
        yield "embedding", f"only for EMBEDDING and RAG_TUNING, but job_type is {job}", "Remove the block"
    if job != "SFT" and view.get("reasoning") is not None:
        yield "reasoning", f"only for SFT, but job_type is {job}", "Remove it"
    if job != "SFT" and view.get("watermark") is not None:
        yield "watermark", f"only for SFT, but job_type is {job}", "Remove the block"
    if job == "EMBEDDING" and view.get("trainer") == "axolotl":
        yield "trainer", "axolotl trains no embedding models", "Write trainer: trl"
    alpha = view.number("hyperparams.lora_alpha")
    if view.get("trainer") == "axolotl" and alpha is not None and alpha != int(alpha):
        yield "hyperparams.lora_alpha", f"axolotl takes whole numbers, not {alpha}", "Round it, or write trainer: trl"


def _ref_rules(path: str, ref: str | None) -> Iterator[Rule]:
    if ref is None:
        return
    try:
        parse_base_ref(ref)
    except ValueError as error:
        yield path, str(error), BASE_REF_HINT


def _hyperparam_rules(view: View) -> Iterator[Rule]:
    method = view.get("method", str)
    if method == "full":
        for name in LORA_FIELDS:
            if view.get(f"hyperparams.{name}") is not None:
                yield f"hyperparams.{name}", "has no effect with method full", "Remove it, or write method: lora"
        if view.get("hyperparams.train_embeddings", bool):
            yield (
                "hyperparams.train_embeddings",
                "has no effect with method full, which trains the embeddings anyway",
                "Remove it",
            )
    if view.get("hyperparams.target_modules", list) == []:
        yield "hyperparams.target_modules", "names no module, so nothing would be trained", "Write all-linear"
    if view.get("hyperparams.warmup_steps") is not None and view.get("hyperparams.warmup_ratio") is not None:
        yield "hyperparams.warmup_ratio", "contradicts warmup_steps", "Keep one of the two"
    warm = view.number("hyperparams.warmup_steps") or view.number("hyperparams.warmup_ratio")
    if warm and view.get("hyperparams.scheduler") == "constant":
        yield (
            "hyperparams.scheduler",
            "constant has no warm-up, but one is asked for",
            "Write constant_with_warmup, or remove the warm-up",
        )
    if view.get("hyperparams.precision") == "fp16" and view.get("resources.gpus", int) == 0:
        yield "hyperparams.precision", "fp16 needs a GPU, but resources.gpus is 0", "Write fp32 or bf16"
    together = (view.get("resources.gpus", int) or 0) * (view.get("resources.nodes", int) or 1)
    if view.get("resources.sharding") is not None and together < 2:
        yield "resources.sharding", "has no effect on one device", "Remove it, or ask for more GPUs"
    if view.get("resources.gpus", int) == 0 and view.get("resources.gpu_type") is not None:
        yield "resources.gpu_type", "has no effect where gpus is 0", "Remove it, or ask for GPUs"
    save, evaluate = view.get("hyperparams.save_steps", int), view.get("hyperparams.eval_steps", int)
    if view.get("hyperparams.early_stopping") is not None and save and evaluate and save % evaluate:
        yield (
            "hyperparams.save_steps",
            f"{save} is no multiple of eval_steps {evaluate}, so the best model may never have been saved",
            "Early stopping keeps the best checkpoint: make save_steps a multiple of eval_steps",
        )


def _architecture_rules(view: View) -> Iterator[Rule]:
    hidden, heads = view.get("architecture.hidden_size", int), view.get("architecture.num_heads", int)
    kv_heads, vocabulary = view.get("architecture.num_kv_heads", int), view.get("architecture.vocab_size", int)
    if hidden and heads and hidden % (2 * heads):
        yield (
            "architecture.hidden_size",
            f"{hidden} cannot be divided into {heads} heads of an even size",
            "Make it a multiple of twice num_heads",
        )
    if heads and kv_heads and heads % kv_heads:
        yield (
            "architecture.num_kv_heads",
            f"{heads} heads cannot share {kv_heads} key-value heads equally",
            "Choose a divisor of num_heads",
        )
    if view.get("job_type") == "PRETRAIN" and view.get("hyperparams.overlong") is not None:
        yield "hyperparams.overlong", "has no effect for PRETRAIN, which cuts its corpus into blocks", "Remove it"
    wanted = view.get("tokenizer.vocab_size", int)
    if vocabulary and wanted and vocabulary < wanted:
        yield (
            "architecture.vocab_size",
            f"{vocabulary} has no room for a tokenizer of {wanted} entries",
            "Leave it out, or make it at least tokenizer.vocab_size",
        )
    longest, length = view.get("architecture.max_position_embeddings", int), view.get("hyperparams.max_seq_len", int)
    if longest and length and longest < length:
        yield (
            "hyperparams.max_seq_len",
            f"{length} is more than architecture.max_position_embeddings {longest}",
            "Make the model longer, or the rows shorter",
        )
