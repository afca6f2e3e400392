"""Task `train`: trains the planned rows, from the last whole checkpoint where there is one.

Job: spec, base ({path} or null), plan_dir, checkpoints, output, precision, gradient_checkpointing, family_version,
stop_token. Leaves the weights in `output`, sealed; the facts in the seal are the result.
"""

import contextlib
import gc
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer, pack_dataset
from trl.trainer import utils as trl_utils

from images.train import rows
from images.train.chat import stop_at
from images.train.reporter import Reporter, Stopped
from llmops_assets.specs.policy import FAMILY_VERSION_KEY
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.plan import total_steps

_MODEL_TYPE = {"llama": "llama", "mistral": "mistral", "gemma": "gemma3_text", "qwen": "qwen3"}
"""The architecture that a PRETRAIN job of a family makes."""

_EVALUATED_ROWS = 512
_SAMPLED_VALUES = 1 << 20
"""Values of a tensor that are compared with its initialisation: of a large one, so many, evenly spaced."""

_SAY_EVERY_SECONDS = 2.0

# TRL's head scores only the positions that carry loss where Triton runs, and every position elsewhere, because some
# accelerators compile anew for each shape. A CPU does not: in a chat most positions carry no loss.
trl_utils._use_triton = lambda device: device.type in ("cuda", "xpu", "cpu")


def run(job: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    output = Path(job["output"])
    with folders.only_one(output.parent, reporter.log.info):
        facts = folders.facts(output)
        if facts is not None:
            reporter.log.info("another process has trained these weights meanwhile: nothing is left to do")
            return facts
        return _train(job, reporter)


def _train(job: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    # The trainer collects garbage before it starts; a million objects of the imports need not be looked at for that.
    gc.freeze()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    spec = TrainJobSpec.model_validate(job["spec"])
    output, checkpoints, plan_dir = Path(job["output"]), Path(job["checkpoints"]), Path(job["plan_dir"])
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    train = rows.training_columns(rows.load(plan_dir / "train.parquet"))
    validation_file = plan_dir / "validation.parquet"
    validation = None
    if validation_file.exists():
        validation = rows.training_columns(rows.load(validation_file).head(_EVALUATED_ROWS))
    step, checkpoint, warnings = folders.last_checkpoint(checkpoints)
    for warning in warnings:
        reporter.log.warning(warning)
    for found, path in folders.checkpoints(checkpoints):
        if step is None or found > step:
            shutil.rmtree(path)
    torch.manual_seed(spec.hyperparams.seed)
    model = _new_model(spec, len(tokenizer), tokenizer, job) if job["base"] is None else _base_model(spec, job)
    trainer = _trainer(spec, job, model, tokenizer, train, validation, reporter)
    start = Snapshot(trainer.model)
    if step is not None:
        reporter.log.info("resuming from the checkpoint of step %d", step)
    began = time.monotonic()
    with reporter.finishing_first():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - began
    state = trainer.state
    if reporter.stop_reason and state.global_step < state.max_steps:
        raise Stopped(
            f"stopped at step {state.global_step} of {state.max_steps} ({reporter.stop_reason}); "
            "its checkpoint is saved, the next run resumes from it"
        )
    eval_loss = _last_eval_loss(trainer, validation)
    change, non_finite = start.compare(trainer.model)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # What was merged of earlier weights is no longer what it says.
    shutil.rmtree(output.parent / "merged", ignore_errors=True)
    _save(trainer, tokenizer, spec, output, job.get("stop_token"))
    curve = _curve(state.log_history)
    losses = [point["loss"] for point in curve if point.get("loss") is not None]
    facts = {
        "path": str(output),
        "content_hash": folders.content_hash(output) if spec.method == "full" else _adapter_hash(output),
        "steps": state.global_step,
        "resumed_from": step,
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-max(1, len(losses) // 20) :])),
        "eval_loss": eval_loss,
        "seconds": seconds,
        "tokens_per_second": trainer.progress.rate,
        "peak_memory_bytes": _peak_memory(),
        "curve": curve,
        "weight_change": change,
        "non_finite_weights": non_finite,
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    }
    folders.seal(output, facts)
    ends = (losses[0], facts["last_loss"])
    reporter.log.info("trained %d steps in %.0f s, loss %.4f to %.4f", state.global_step, seconds, *ends)
    return facts


def _new_model(spec: TrainJobSpec, vocabulary: int, tokenizer: Any, job: dict[str, Any]) -> Any:
    shape = spec.architecture
    config = AutoConfig.for_model(
        _MODEL_TYPE[spec.model_family],
        vocab_size=shape.vocab_size or vocabulary,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.hidden_size // shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings or spec.hyperparams.max_seq_len,
        rope_theta=shape.rope_theta,
        tie_word_embeddings=shape.tie_embeddings,
        initializer_range=shape.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    if job.get("family_version"):
        setattr(config, FAMILY_VERSION_KEY, job["family_version"])
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _base_model(spec: TrainJobSpec, job: dict[str, Any]) -> Any:
    precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[job["precision"]]
    # Full fine-tuning in half precision keeps fp32 weights under autocast: small updates would vanish in bf16.
    arguments: dict[str, Any] = {"dtype": torch.float32 if spec.method == "full" else precision}
    if spec.method == "qlora":
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=precision,
        )
    model = AutoModelForCausalLM.from_pretrained(
        job["base"]["path"], trust_remote_code=False, use_safetensors=True, **arguments
    )
    for module in model.modules():
        # On some CPUs bitsandbytes packs its weights anew, with coarser scales, at the first evaluation; the training
        # after it would be of another base.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _lora(spec: TrainJobSpec, model: Any) -> Any:
    from peft import LoraConfig

    hyper = spec.hyperparams
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    saved = (["embed_tokens"] if tied else ["embed_tokens", "lm_head"]) if hyper.train_embeddings else None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=hyper.lora_rank,
        lora_alpha=hyper.lora_alpha,
        lora_dropout=hyper.lora_dropout or 0.0,
        target_modules=hyper.target_modules,
        modules_to_save=saved,
        ensure_weight_tying=bool(saved) and tied,
    )


def sft_arguments(spec: TrainJobSpec, job: dict[str, Any], count: int, evaluated: bool) -> dict[str, Any]:
    """The arguments of TRL's SFTConfig for `count` rows, or packed blocks."""
    hyper = spec.hyperparams
    steps = total_steps(count, hyper)
    warmup = hyper.warmup_steps if hyper.warmup_steps is not None else math.ceil((hyper.warmup_ratio or 0.0) * steps)
    evaluate = "no" if not evaluated else "epoch" if hyper.eval_steps is None else "steps"
    stopping = evaluate == "steps" and hyper.early_stopping is not None
    return {
        "output_dir": job["checkpoints"],
        "max_steps": steps,
        "per_device_train_batch_size": hyper.batch_size,
        "per_device_eval_batch_size": hyper.batch_size,
        "gradient_accumulation_steps": hyper.gradient_accumulation_steps,
        "learning_rate": hyper.lr,
        "weight_decay": hyper.weight_decay,
        "lr_scheduler_type": hyper.scheduler,
        "warmup_steps": warmup,
        "max_length": hyper.max_seq_len,
        "packing": hyper.packing and spec.job_type != "PRETRAIN",
        "seed": hyper.seed,
        "bf16": job["precision"] == "bf16",
        "fp16": job["precision"] == "fp16",
        "use_cpu": job["device"] == "cpu",
        "activation_checkpointing": job["gradient_checkpointing"],
        "save_strategy": "steps",
        "save_steps": hyper.save_steps,
        # The last may turn out damaged; with early stopping the best is kept besides.
        "save_total_limit": 2,
        "eval_strategy": evaluate,
        "eval_steps": hyper.eval_steps if evaluate == "steps" else None,
        "load_best_model_at_end": stopping,
        "metric_for_best_model": "eval_loss" if stopping else None,
        "logging_strategy": "steps",
        "logging_steps": max(1, min(10, steps // 100)),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": job["device"] == "cuda",
        # Rows come as tokens, truncated and packed already.
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


class LengthGroups(torch.utils.data.Sampler[int]):
    """Row numbers in an order of which every batch holds rows of like length, so that little is padding.

    Rows are shuffled, sorted by length within runs of `run` batches, and the batches shuffled again. The order depends
    on seed and epoch alone, so a resumed training goes on with the rows it would have seen.
    """

    def __init__(self, lengths: np.ndarray, batch: int, seed: int, run: int = 50) -> None:
        self.lengths, self.batch, self.seed, self.run, self.epoch = lengths, batch, seed, run, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        size = self.run * self.batch
        batches: list[np.ndarray] = []
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch] for i in range(0, len(part), self.batch)]
        # Only whole batches change places, or the one that is not would shift all that come after it.
        whole = [b for b in batches if len(b) == self.batch]
        rest = [b for b in batches if len(b) < self.batch]
        random.shuffle(whole)
        return iter(np.concatenate([*whole, *rest]).tolist())


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class _Trainer(SFTTrainer):
    """TRL's trainer over rows that are tokens already, in an order that does not depend on when it was started."""

    lengths: np.ndarray
    progress: "Progress"

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroups(self.lengths, size, self.args.seed)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise Diverged(
                f"the loss became {loss.item()} in step {self.state.global_step + 1}: "
                "lower lr, add warm-up, or look at the rows of this step"
            )
        return loss


def _trainer(
    spec: TrainJobSpec,
    job: dict[str, Any],
    model: Any,
    tokenizer: Any,
    train: dict[str, Any],
    validation: dict[str, Any] | None,
    reporter: Reporter,
) -> _Trainer:
    packing = spec.hyperparams.packing and spec.job_type != "PRETRAIN"
    length = spec.hyperparams.max_seq_len if packing else None
    train_rows = _dataset(train, length)
    # The head takes a buffer for its whole chunk, whatever the vocabulary.
    vocabulary = model.get_output_embeddings().weight.shape[0]
    trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = min(trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE, vocabulary)
    arguments = sft_arguments(spec, job, len(train_rows), validation is not None)
    trainer = _Trainer(
        model=model,
        args=SFTConfig(**arguments),
        train_dataset=train_rows,
        eval_dataset=_dataset(validation, length) if validation is not None else None,
        processing_class=tokenizer,
        peft_config=None if spec.method == "full" else _lora(spec, model),
    )
    trainer.lengths = train["lengths"] if not packing else np.full(len(train_rows), length)
    # It prints what our own log says.
    trainer.remove_callback(PrinterCallback)
    if spec.method == "qlora":
        # TRL casts what is trained to bf16, which the trained copy of the embeddings does not survive.
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    trainer.progress = Progress(reporter)
    trainer.add_callback(trainer.progress)
    if arguments["load_best_model_at_end"]:
        from transformers import EarlyStoppingCallback

        stopping = spec.hyperparams.early_stopping
        trainer.add_callback(EarlyStoppingCallback(stopping.patience, stopping.min_delta))
    return trainer


def _dataset(columns: dict[str, Any], packed_length: int | None) -> datasets.Dataset:
    found = datasets.Dataset.from_dict({name: columns[name] for name in ("input_ids", "labels")})
    return pack_dataset(found, packed_length, "bfd") if packed_length else found


class Progress(TrainerCallback):
    """Says where the training is, seals its checkpoints, and ends it in order when that is asked for."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self.rate: float | None = None
        self._began = self._said = 0.0
        self._first_step = 0
        self._tokens = 0.0
        self._last: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()
        self._first_step = state.global_step
        self.reporter.log.info("training %d steps from step %d", state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.reporter.stop_reason and state.global_step < state.max_steps:
            self.reporter.log.warning("stopping: %s", self.reporter.stop_reason)
            control.should_save = control.should_training_stop = True
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY_SECONDS or state.global_step == state.max_steps:
            self._said = now
            self._say(state, now)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        elapsed = time.monotonic() - self._began
        if "num_tokens" in logs and elapsed > 0:
            self._tokens = logs["num_tokens"]
            self.rate = self._tokens / elapsed
        names = {"loss": "loss", "eval_loss": "eval_loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
        values = {ours: logs[theirs] for theirs, ours in names.items() if theirs in logs}
        if not values:
            return
        self._last |= values
        self.reporter.metrics(
            {"step": state.global_step, "epoch": state.epoch, **values, "tokens_per_second": self.rate}
            | {"memory_bytes": _peak_memory(), "seconds": elapsed}
        )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        folders.seal(folder, {"step": state.global_step})
        self.reporter.log.info("checkpoint of step %d saved", state.global_step)
        self.reporter.metrics({"step": state.global_step, "checkpoint": True})

    def _say(self, state: Any, now: float) -> None:
        done = state.global_step - self._first_step
        left = (now - self._began) / done * (state.max_steps - state.global_step) if done else math.nan
        parts = [f"step {state.global_step}/{state.max_steps}"]
        if "loss" in self._last:
            parts.append(f"loss {self._last['loss']:.4f}")
        if self.rate:
            parts.append(f"{self.rate:,.0f} tokens/s")
        parts.append(f"{left:.0f} s left")
        self.reporter.log.info(", ".join(parts))


class Snapshot:
    """What is trained as it was before the training; of large tensors, evenly spaced values."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._values = {name: self._sample(p) for name, p in self._trained(model)}

    @staticmethod
    def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, p) for name, p in model.named_parameters() if p.requires_grad)

    @staticmethod
    def _sample(parameter: torch.Tensor) -> torch.Tensor:
        flat = parameter.detach().reshape(-1)
        return flat[:: max(1, flat.numel() // _SAMPLED_VALUES)].float().cpu().clone()

    def compare(self, model: torch.nn.Module) -> tuple[float, int]:
        """L2 norm of the change over the values kept, and the number of trained weights that are no numbers."""
        square, broken = 0.0, 0
        for name, parameter in self._trained(model):
            broken += int((~torch.isfinite(parameter.detach())).sum())
            square += float((self._sample(parameter) - self._values[name]).double().square().sum())
        return math.sqrt(square), broken


def _save(trainer: _Trainer, tokenizer: Any, spec: TrainJobSpec, output: Path, stop_token: str | None) -> None:
    model = trainer.model
    if spec.method == "full":
        stop_at(model, tokenizer, stop_token)
        model.config.use_cache = True
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    with contextlib.suppress(FileNotFoundError):
        # TRL's model card names paths of this machine and is no card of ours.
        os.unlink(output / "README.md")


def _adapter_hash(folder: Path) -> str:
    return folders.file_hash(folder / "adapter_model.safetensors")[:16]


def _last_eval_loss(trainer: _Trainer, validation: dict[str, Any] | None) -> float | None:
    if validation is None:
        return None
    for entry in reversed(trainer.state.log_history):
        if entry.get("step") == trainer.state.global_step and "eval_loss" in entry:
            return float(entry["eval_loss"])
    return float(trainer.evaluate()["eval_loss"])


def _curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Loss by step, thinned to about 500 points."""
    points = [
        {"step": e["step"], **{k: e[k] for k in ("loss", "eval_loss") if k in e}}
        for e in history
        if "loss" in e or "eval_loss" in e
    ]
    stride = math.ceil(len(points) / 500)
    return [p for i, p in enumerate(points) if i % stride == 0 or i == len(points) - 1 or "eval_loss" in p]


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
