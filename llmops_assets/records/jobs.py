"""The jobs that the worker is given, one model a task, and the modules that do them.

The platform makes one of these, the worker reads it back from its job file: what is missing, misspelt or of the wrong
kind is refused on either side, by field.
"""

import json
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmops_assets.specs.base import dotted
from llmops_assets.specs.job_types import JobType
from llmops_assets.specs.jobs import Pooling
from llmops_assets.specs.training import TrainJobSpec

Precision = Literal["fp32", "bf16", "fp16"]
"""What a model computes with."""
DeviceKind = Literal["cpu", "cuda", "mps"]

PLANNER: dict[JobType, str] = {
    "PRETRAIN": "images.train.plan_corpus",
    "SFT": "images.train.plan_chat",
    "RLHF": "images.train.plan_pairs",
    "EMBEDDING": "images.train.plan_encoder",
    "RAG_TUNING": "images.train.plan_rag",
}
"""The module that plans the rows of a job type."""
TRAINER: dict[JobType, str] = {
    "PRETRAIN": "images.train.sft",
    "SFT": "images.train.sft",
    "RLHF": "images.train.rlhf",
    "EMBEDDING": "images.train.encoder",
    "RAG_TUNING": "images.train.rag",
}
"""The module that trains a job type by TRL or transformers."""
AXOLOTL = ("images.train.axolotl", "images.train.axolotl_plugin", "images.train.axolotl_dpo")
"""What trains by Axolotl, for the worker and inside Axolotl's own process."""


class JobError(ValueError):
    """A job that cannot be done as it is written; the message names the fields."""


class JobPart(BaseModel):
    """A part of a job: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class ModelFolder(JobPart):
    """A model that a job reads."""

    path: str
    content_hash: str | None = Field(default=None, description="What it must be; None takes it as it is.")
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 by file name, to name what changed.")


class MemoryEstimate(JobPart):
    """What the plan reckoned with, in bytes; told when memory runs out."""

    needed: int
    available: int = Field(description="0 where the device does not tell.")
    advice: str = Field(description="Settings that need less.")


class Job(JobPart):
    """What every job has, and what the trainer adds to it: the files by which it and the worker speak."""

    module: ClassVar[str]
    """Package of the worker that does it, run as `python -m`."""
    computes: ClassVar[bool] = True
    """Whether it computes on a GPU where there is one."""

    task: str
    gpus: int = Field(default=1, ge=0, description="GPUs that are leased for it where there are any; 0 is the CPU.")
    job_type: JobType | None = Field(default=None, description="An image built for another job type refuses it.")
    image: str | None = Field(default=None, description="What it was planned to run in, by content.")
    result: str | None = Field(default=None, description="File of what came of it.")
    error: str | None = Field(default=None, description="File of why nothing came of it.")
    log: str | None = None
    metrics: str | None = Field(default=None, description="File of live metrics, a line of JSON each.")
    live: str | None = Field(default=None, description="File of where it is right now.")
    locks: str | None = Field(default=None, description="Folder of the GPU leases.")
    alive: str | None = Field(default=None, description="File that is touched for as long as somebody waits for it.")
    alive_seconds: float | None = Field(default=None, description="Without a touch for so long, nobody does.")
    grace_seconds: float = Field(default=120.0, description="An orphan may take so long to save a checkpoint.")


class _Training(Job):
    module: ClassVar[str] = "images.train"

    spec: TrainJobSpec
    base: ModelFolder | None = Field(default=None, description="None for a model made from nothing.")
    reward: ModelFolder | None = Field(default=None, description="The reward model that an RLHF spec names.")
    retriever: ModelFolder | None = Field(default=None, description="The encoder that RAG_TUNING trains to retrieve.")
    pooling: Pooling | None = Field(default=None, description="How the encoder makes one vector of a text.")
    plan_dir: str = Field(description="Folder of the planned rows.")
    plan_files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the planned rows' files, as the plan's record has them."
    )


class PlanJob(_Training):
    """Renders the rows as they will be trained, and reports what is known before a GPU is spent."""

    computes: ClassVar[bool] = False

    task: Literal["plan"] = "plan"
    gpus: int = 0
    store: str = Field(description="Root of the dataset store.")
    manifests: dict[str, str] = Field(description="Manifest id by split.")
    extra_rows: str | None = Field(default=None, description="Parquet of more training rows: those of a watermark.")
    template_date: str | None = Field(
        default=None, description="What a chat template that asks for today is told, ISO 8601; None: it asks nothing."
    )


class TrainJob(_Training):
    """Trains the planned rows, from the last whole checkpoint where there is one."""

    task: Literal["train"] = "train"
    checkpoints: str
    output: str = Field(description="Folder of the trained weights.")
    precision: Precision
    gradient_checkpointing: bool = False
    device: DeviceKind
    family_version: str | None = Field(default=None, description="Put into the config of a model made from nothing.")
    stop_token: str | None = None
    memory: MemoryEstimate | None = None
    engines: str | None = Field(default=None, description="Folder of trainers with an environment of their own.")
    stop: str | None = Field(default=None, description="File that asks the processes of a shared training to stop.")
    resumed_from: int | None = Field(default=None, description="Step of the checkpoint that Axolotl goes on from.")


class MergeJob(_Training):
    """Makes the servable model of trained weights, and measures how far it is from them and from the base."""

    computes: ClassVar[bool] = False

    task: Literal["merge"] = "merge"
    gpus: int = 0
    adapter: str = Field(description="Folder of the trained weights.")
    adapter_files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of its files, as the record of the training has them."
    )
    output: str
    precision: Precision
    stop_token: str | None = None


class AskJob(Job):
    """Asks a model that is trained already; `input_field` is the name of the field that holds the questions."""

    module: ClassVar[str] = "images.ask"
    input_field: ClassVar[str]

    model_dir: str
    output_file: str = Field(description="JSON lines, in the order of the input.")
    precision: Precision = "fp32"


class GenerateJob(AskJob):
    """Greedy answers to chat prompts."""

    input_field: ClassVar[str] = "prompts_file"

    task: Literal["generate"] = "generate"
    prompts_file: str = Field(description="JSON lines of {id, messages}.")
    max_new_tokens: int = Field(ge=1)
    batch_size: int = Field(default=16, ge=1)
    seed: int = 0
    latency_items: int = Field(default=0, ge=0, description="Prompts that are asked one at a time too, and timed.")
    asks_alone: bool = Field(default=False, description="Whether a few prompts are asked alone too, and compared.")


class ChoicesJob(AskJob):
    """The log-likelihood of each choice of multiple-choice questions."""

    input_field: ClassVar[str] = "prompts_file"

    task: Literal["choices"] = "choices"
    prompts_file: str = Field(description="JSON lines of {id, messages, choices}.")
    batch_size: int = Field(default=16, ge=1, description="Sequences of up to 256 tokens.")


class PerplexityJob(AskJob):
    """The negative log-likelihood of whole documents."""

    input_field: ClassVar[str] = "texts_file"

    task: Literal["perplexity"] = "perplexity"
    texts_file: str = Field(description="JSON lines of {id, text}.")
    max_length: int | None = Field(default=None, ge=2, description="Tokens of a window; the context, at most 2048.")


class BertscoreJob(AskJob):
    """How alike answers and references are under a local encoder."""

    input_field: ClassVar[str] = "pairs_file"

    task: Literal["bertscore"] = "bertscore"
    pairs_file: str = Field(description="JSON lines of {id, answer, references}.")
    batch_size: int = Field(default=16, ge=1)
    layer: int = Field(default=-1, description="Index into the hidden states.")


class HarnessJob(AskJob):
    """A task of lm-evaluation-harness on documents of ours: rendered, or evaluated with a model."""

    input_field: ClassVar[str] = "docs_file"

    task: Literal["harness"] = "harness"
    mode: Literal["render", "evaluate"]
    model_dir: str = Field(default="", description="To evaluate.")
    config: dict[str, Any] = Field(description="The task's YAML as a mapping.")
    docs_file: str
    metric: str | None = Field(default=None, description="The task's first unless given.")
    batch_size: int = Field(default=16, ge=1)


class RetrieveJob(AskJob):
    """For every query the passages that an encoder puts nearest."""

    input_field: ClassVar[str] = "texts_file"

    task: Literal["retrieve"] = "retrieve"
    texts_file: str = Field(description="JSON lines of {id, kind: query | passage, text, relevant}.")
    query_prompt: str = ""
    passage_prompt: str = ""
    pooling: Pooling | None = Field(default=None, description="For a folder that sentence-transformers did not save.")
    max_length: int | None = Field(default=None, ge=1, description="Tokens of a text, for such a folder.")
    top_k: int = Field(default=10, ge=1)


class EmbedJob(AskJob):
    """The vectors of texts by an encoder."""

    input_field: ClassVar[str] = "texts_file"

    task: Literal["embed"] = "embed"
    texts_file: str = Field(description="JSON lines of {id, text}, each behind its prompt.")
    output_file: str = Field(description="safetensors of `vectors`, a unit vector a text, in the order of the input.")
    chunk: int = Field(default=1024, ge=1, description="Texts whose vectors are kept at a time, to go on from.")


class PreferJob(AskJob):
    """What a model, or a reward model, thinks of two answers to each of some prompts."""

    input_field: ClassVar[str] = "pairs_file"

    task: Literal["prefer"] = "prefer"
    kind: Literal["reward", "likelihood"]
    pairs_file: str = Field(description="JSON lines of {id, prompt, chosen, rejected} and perhaps {ended}.")


AnyJob = (
    PlanJob
    | TrainJob
    | MergeJob
    | GenerateJob
    | ChoicesJob
    | PerplexityJob
    | BertscoreJob
    | HarnessJob
    | RetrieveJob
    | EmbedJob
    | PreferJob
)
JOBS: dict[str, type[AnyJob]] = {kind.model_fields["task"].default: kind for kind in get_args(AnyJob)}
"""The job of each task."""


class CompressJob(JobPart):
    """Writes a model with fewer bits: for `images.compress`, which runs in an engine's environment."""

    model_dir: str
    output: str = Field(description="A folder that is not there.")
    scheme: str
    calibration: str = Field(description="JSON lines of {ids}.")
    probes: str = Field(description="JSON lines of {ids}.")


def module_of(task: str) -> str:
    """The package of the worker that does a task."""
    kind = JOBS.get(task)
    return "images.train" if kind is None else kind.module


def read_job(text: str | bytes) -> AnyJob:
    """The job that is written in a job file; JobError names each field that is wrong."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise JobError(f"the job is no JSON: {error}") from error
    task = data.get("task") if isinstance(data, dict) else None
    if task not in JOBS:
        raise JobError(f"unknown task {task!r}: there are {', '.join(JOBS)}")
    try:
        return JOBS[task].model_validate(data)
    except ValidationError as error:
        faults = [f"{dotted(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False)]
        raise JobError(f"the job {task} cannot be done as it is written: {'; '.join(faults)}") from error
