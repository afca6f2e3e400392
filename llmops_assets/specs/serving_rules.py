"""What the policy asks of models that are served: engines, guards, replay, compressed forms."""

from typing import Literal

from pydantic import Field

from llmops_assets.specs.base import Bool, Float, Int, Part, Text
from llmops_assets.specs.job_types import Environment, JobType, Scheme, ServeTarget


class InjectionClassifier(Part):
    """A sequence classifier of the user's that tells attempts at injection from other requests."""

    path: Text = Field(description="A local folder: config.json, safetensors, a fast tokenizer.")
    threshold: Float = Field(default=0.9, gt=0, lt=1)
    clean_labels: list[Text] = Field(
        default_factory=lambda: ["safe", "benign", "legit", "clean", "normal", "no_injection", "LABEL_0"],
        description="Labels that mean no attempt.",
    )


class Replay(Part):
    """What a candidate is asked before it gets users: what the endpoint's users asked in the last days."""

    required: Bool = Field(default=False, description="Whether no model gets users that a replay found worse.")
    days: Int = Field(default=7, ge=1, description="Of traffic, compacted by the asset `traffic`.")
    requests: Int = Field(default=200, ge=2, description="At most.")
    token_budget: Int = Field(default=100_000, ge=100, description="Prompts and answers of one replay, at most.")
    max_new_tokens: Int = Field(default=256, ge=1, description="Of each answer.")
    max_personal_share: Float = Field(
        default=0.01, ge=0, le=1, description="Of the answers, with personal data that were not there before."
    )
    fresh_days: Float = Field(default=1, gt=0, description="How long a replay of the same weights is good for.")


class ServingPolicy(Part):
    """What may be served how, and the bounds of a model server."""

    targets: dict[ServeTarget, list[JobType]]
    adapter_environments: list[Environment]
    cb_num_blocks: Int = Field(ge=1)
    cb_block_size: Int = Field(ge=1)
    cb_max_batch_tokens: Int = Field(ge=1)
    start_timeout_seconds: Float = Field(gt=0)
    stop_timeout_seconds: Float = Field(gt=0)
    injection_classifier: InjectionClassifier | None = Field(
        default=None, description="Asked by guards of endpoints that want it, beside the rules."
    )
    drain_seconds: Float = Field(default=30, gt=0, description="How long requests in flight hold up a server's end.")
    replay: Replay = Field(default_factory=Replay)
    max_restarts: Int = Field(
        default=5, ge=0, description="How often in a row a server that keeps ending is started again."
    )


class Compression(Part):
    """What of a model may be lost when its weights are written with fewer bits."""

    schemes: list[Scheme] = Field(
        default_factory=lambda: ["w8a8"], min_length=1, description="Made unless the run says otherwise."
    )
    max_drop: Float = Field(default=0.02, ge=0, le=1, description="Of the headline figure, in points of it.")
    min_top1: Float = Field(default=0.9, ge=0, le=1, description="Share of tokens that both think likeliest.")
    calibration_rows: Int = Field(default=128, ge=1, description="Training rows that the rounding is fitted on.")


class RegistryPolicy(Part):
    """How a model becomes a version, and what it has to show."""

    new_version: Literal["draft", "staging"] = Field(
        default="staging", description="draft: a person approves it; staging: the gate is enough."
    )
    parity_items: Int = Field(default=8, ge=1, description="Evaluation items that a probe server has to repeat.")
    compression: Compression = Field(default_factory=Compression)
