"""Whether a training fits a device, and where it does not, which settings near the ones asked for would."""

from collections.abc import Iterator
from dataclasses import dataclass

from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.memory import Shape
from llmops_assets.training.plan import MEMORY_SHARE, MemoryPlan, plan_memory, training_seconds
from resources.gpus import GPU_TYPES, Device

_LIGHTER = {"full": ("full", "lora", "qlora"), "lora": ("lora", "qlora"), "qlora": ("qlora",)}
SHOWN = 3


@dataclass(frozen=True)
class Setting:
    """A way to write the spec, and what it needs in bytes."""

    method: str
    batch_size: int
    accumulation: int
    length: int
    needed: int

    def words(self, spec: TrainJobSpec, longest: int) -> str:
        """What to change in `spec`, whose longest row has `longest` tokens."""
        hyper = spec.hyperparams
        parts = [f"method: {self.method}"] if self.method != spec.method else []
        if self.batch_size != hyper.batch_size:
            parts.append(f"batch_size: {self.batch_size}, gradient_accumulation_steps: {self.accumulation}")
        if self.length != longest:
            parts.append(f"max_seq_len: {self.length}")
        return f"{', '.join(parts) or 'as it is'} (about {self.needed / 2**30:.1f} GiB)"


def settings_within(
    shape: Shape, spec: TrainJobSpec, *, precision: str, device: str, available: int, length: int
) -> Iterator[Setting]:
    """Settings that fit into `available` bytes, those that change least first.

    The rows of an update stay as many: a smaller batch comes with as much more accumulation.
    """
    hyper = spec.hyperparams
    lengths = [part for part in (length, length // 2, length // 4) if part >= 256 or part == length]
    found = []
    for lighter, method in enumerate(_LIGHTER[spec.method]):
        for shorter, tokens in enumerate(lengths):
            for halvings in range(hyper.batch_size.bit_length()):
                batch = max(1, hyper.batch_size >> halvings)
                changed = hyper.model_copy(update={"batch_size": batch, "lora_rank": hyper.lora_rank or 16})
                other = spec.model_copy(update={"method": method, "hyperparams": changed})
                plan = plan_memory(shape, other, precision=precision, device=device, available=available, length=tokens)
                if plan.fits:
                    accumulation = -(-hyper.batch_size * hyper.gradient_accumulation_steps // batch)
                    setting = Setting(method, batch, accumulation, tokens, plan.estimate.total)
                    # A smaller batch trains the same; another method does not quite; cut rows least of all.
                    found.append(((shorter, lighter, halvings), setting))
                    break
    return (setting for _cost, setting in sorted(found, key=lambda pair: pair[0]))


def advice(shape: Shape, spec: TrainJobSpec, *, precision: str, device: str, available: int, length: int) -> str:
    """Up to three settings that fit `available` bytes, or the smallest GPU that would hold the spec as it is."""
    within = settings_within(shape, spec, precision=precision, device=device, available=available, length=length)
    words = [setting.words(spec, length) for setting, _ in zip(within, range(SHOWN), strict=False)]
    larger = _smallest_type(shape, spec, length)
    if larger:
        words.append(f"gpu_type: {larger}")
    return "; or ".join(words) or "no GPU of one card holds it with any of batch_size, method and max_seq_len"


def _smallest_type(shape: Shape, spec: TrainJobSpec, length: int) -> str | None:
    precision = spec.hyperparams.precision or "bf16"
    holding = [
        (gpu.memory_bytes, name)
        for name, gpu in GPU_TYPES.items()
        if plan_memory(shape, spec, precision=precision, device="cuda", available=gpu.memory_bytes, length=length).fits
    ]
    return min(holding)[1] if holding else None


def refusal(plan: MemoryPlan, shape: Shape, spec: TrainJobSpec, *, precision: str, device: str, length: int) -> str:
    """What to tell of a training that does not fit, with settings that would."""
    there = int(MEMORY_SHARE * plan.available)
    return (
        f"about {plan.estimate.total / 2**30:.1f} GiB are needed and {there / 2**30:.1f} GiB are there. It fits with: "
        + advice(shape, spec, precision=precision, device=device, available=plan.available, length=length)
    )


@dataclass(frozen=True)
class OnType:
    """What a training needs on the GPU type that its spec names: bytes, seconds, and what to change (None: it fits)."""

    gpu: str
    needed: int
    available: int
    seconds: float
    advice: str | None


def on_gpu_type(shape: Shape, spec: TrainJobSpec, *, length: int, tokens: int) -> OnType | None:
    """The estimate for `resources.gpu_type`, wherever this is planned; None without one, or for one not known."""
    asked = spec.resources.gpu_type
    gpu = GPU_TYPES.get(asked.lower()) if asked else None
    if gpu is None:
        return None
    precision = spec.hyperparams.precision or "bf16"
    plan = plan_memory(shape, spec, precision=precision, device="cuda", available=gpu.memory_bytes, length=length)
    seconds = training_seconds(
        shape, tokens=tokens, method=spec.method, checkpointing=plan.checkpointing, flops=gpu.achieved_flops
    )
    misfit = None if plan.fits else refusal(plan, shape, spec, precision=precision, device="cuda", length=length)
    return OnType(asked, plan.estimate.total, int(MEMORY_SHARE * plan.available), seconds, misfit)


def wrong_type(spec: TrainJobSpec, device: Device) -> str | None:
    """What to tell where the GPU that was found is not of the type that the spec asks for."""
    asked = spec.resources.gpu_type
    if asked is None or device.kind != "cuda" or device.id.startswith("simulated"):
        return None
    if asked.lower().replace("-", " ") in device.name.lower().replace("-", " "):
        return None
    return f"resources.gpu_type is {asked}, and this machine has {device.name}: correct it, or leave it out"
