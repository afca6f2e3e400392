"""Decides, from a spec and what is known of rows and base, what exactly a training will do."""

import dataclasses
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from llmops_assets.specs.jobs import OFFLINE
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.memory import Estimate, Shape, estimate
from resources.gpus import GPU_TYPES, Device

SHARED_JOBS = ("PRETRAIN", "SFT")
"""What several GPUs train together."""
AXOLOTL_JOBS = ("PRETRAIN", "SFT")
"""What Axolotl trains here besides RLHF with algorithm dpo; it has no embedding training."""

MEMORY_SHARE = 0.9
"""Share of a device's memory that a plan may fill: fragments and peaks need the rest."""


class PlanError(ValueError):
    """The training cannot run as asked; the message says what to change."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a step needs on the device it will run on, and whether activations are recomputed to make it fit."""

    estimate: Estimate
    available: int
    checkpointing: bool

    @property
    def fits(self) -> bool:
        # Nothing is known of a device that does not tell its memory, so nothing is refused there.
        return not self.available or self.estimate.total <= MEMORY_SHARE * self.available


def check_supported(spec: TrainJobSpec, gpus_found: int = 0, engines: Path | None = None) -> None:
    """Raise PlanError for a spec that is valid but that cannot be trained here.

    `engines` is the folder of the engines' environments; None where an image holds them.
    """
    if spec.trainer == "axolotl" and spec.job_type not in AXOLOTL_JOBS and not _by_dpo(spec):
        asked = f"{spec.job_type} with algorithm {spec.rlhf.algorithm}" if spec.rlhf else spec.job_type
        known = f"{', '.join(AXOLOTL_JOBS)} and RLHF with algorithm dpo"
        raise PlanError(f"trainer axolotl trains {known} here, not {asked}: write trl")
    if spec.trainer == "axolotl" and engines is not None:
        # Here, because Axolotl's own environment reads this module too and has not all that the resource needs.
        from resources.engines import EngineError, Engines

        try:
            Engines(engines).python("axolotl")
        except EngineError as error:
            raise PlanError(f"{error}, or write trainer: trl") from error
    shared = max(1, spec.resources.gpus) * spec.resources.nodes > 1 and bool(gpus_found)
    if spec.resources.nodes > 1 and not gpus_found:
        raise PlanError(f"resources.nodes is {spec.resources.nodes}, and there is no GPU here: write nodes: 1")
    if shared and (spec.trainer != "trl" or spec.job_type not in SHARED_JOBS):
        what = f"trainer {spec.trainer}" if spec.trainer != "trl" else f"job_type {spec.job_type}"
        raise PlanError(f"{what} trains on one GPU here: write gpus: 1 and nodes: 1")
    if shared and spec.method == "qlora" and spec.resources.sharding != "ddp":
        raise PlanError("four-bit weights cannot be sharded: write resources.sharding: ddp, or method: lora")
    if shared and (spec.resources.sharding or "").startswith("zero") and not find_spec("deepspeed"):
        raise PlanError(f"{spec.resources.sharding} needs DeepSpeed: pip install deepspeed, or write sharding: fsdp")


def _by_dpo(spec: TrainJobSpec) -> bool:
    return spec.rlhf is not None and spec.rlhf.algorithm == "dpo"


def effective_precision(asked: str, device: str) -> str:
    """The precision of the computation: half precision is emulated, slowly, where there is no GPU that has it."""
    return asked if device == "cuda" else "fp32"


def shared_by(spec: TrainJobSpec, device: str) -> int:
    """How many processes share the training of a spec on a device of that kind: one, where there is no GPU."""
    return max(1, spec.resources.gpus) * spec.resources.nodes if device == "cuda" else 1


def plan_memory(
    shape: Shape,
    spec: TrainJobSpec,
    *,
    precision: str,
    device: str,
    available: int,
    length: int,
) -> MemoryPlan:
    """Memory of a step of rows of at most `length` tokens; activations are recomputed only if that makes it fit.

    A row may be several sequences (the two of a pair), and other models may be there that are only asked.
    """

    def needed(checkpointing: bool) -> Estimate:
        hyper = spec.hyperparams
        found = estimate(
            shape,
            method=spec.method,
            precision=precision,
            batch=hyper.batch_size * sequences_a_row(spec),
            length=length,
            rank=hyper.lora_rank or 16,
            train_embeddings=hyper.train_embeddings,
            checkpointing=checkpointing,
            device=device,
        )
        return dataclasses.replace(found, weights=found.weights + frozen_bytes(spec, shape, precision))

    plain = MemoryPlan(needed(False), available, False)
    return plain if plain.fits else MemoryPlan(needed(True), available, True)


def sequences_a_row(spec: TrainJobSpec) -> int:
    """How many sequences of the model one row of a batch is: the two answers of a pair, an anchor and its passages.

    Of an encoder's rows one negative is reckoned with.
    """
    if spec.job_type == "RLHF":
        # Of kto the answer, and the one that the divergence is estimated from.
        return 2 if spec.rlhf.algorithm in OFFLINE else 1
    if spec.job_type == "EMBEDDING":
        return 3
    return 1


def frozen_bytes(spec: TrainJobSpec, shape: Shape, precision: str) -> int:
    """Bytes of what a preference training asks besides the model it trains: the reference, and the reward model.

    An adapter's reference is its own base, with the adapter turned off.
    """
    if spec.job_type != "RLHF":
        return 0
    reference = 4 * shape.parameters if spec.method == "full" else 0
    judge = {"fp32": 4, "bf16": 2, "fp16": 2}[precision] * shape.parameters if spec.rlhf.algorithm not in OFFLINE else 0
    return reference + judge


def achieved_flops(device: Device) -> float:
    """Operations a second to reckon with on a device: of its kind, where its name is not known."""
    known = next((gpu.achieved_flops for name, gpu in GPU_TYPES.items() if name in device.name.lower()), None)
    return known or {"cuda": 50e12, "mps": 5e12, "cpu": 50e9}[device.kind]


def training_seconds(shape: Shape, *, tokens: int, method: str, checkpointing: bool, flops: float) -> float:
    """Rough time of `tokens` tokens at `flops` achieved operations a second.

    6 operations a parameter and token for full training (Kaplan et al. 2020, arXiv:2001.08361), 4 where the base is
    frozen, and 2 more where activations are recomputed.
    """
    per_parameter = (6 if method == "full" else 4) + (2 if checkpointing else 0)
    return tokens * per_parameter * shape.parameters / flops
