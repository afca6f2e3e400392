"""Next-token training with TRL's SFTTrainer: PRETRAIN on blocks of a corpus, SFT on rendered conversations."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer, pack_dataset
from trl.trainer import utils as trl_utils

from images.train import batch_rows, distributed, isolated, rows, session, weights
from images.train.order import LengthGroups
from images.train.probe import loss_in_memory
from images.train.reporter import Reporter
from images.train.session import Session, common_arguments
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec

_EVALUATED_ROWS = 512

# TRL's head scores only the positions that carry loss where Triton runs, and every position elsewhere, because some
# accelerators compile anew for each shape. A CPU does not: in a chat most positions carry no loss.
trl_utils._use_triton = lambda device: device.type in ("cuda", "xpu", "cpu")


def train(spec: TrainJobSpec, job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    """The worker's training of a PRETRAIN or SFT job."""
    return session.train(lambda: build(spec, job), spec, job, reporter)


def build(spec: TrainJobSpec, job: TrainJob) -> Session:
    """The trainer of the planned rows, and how its weights are saved."""
    plan_dir = Path(job.plan_dir)
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    train = rows.training_columns(rows.load(plan_dir / "train.parquet"))
    validation_file = plan_dir / "validation.parquet"
    validation = None
    if validation_file.exists():
        validation = rows.training_columns(rows.load(validation_file).head(_EVALUATED_ROWS))
    if job.base is None:
        model = weights.new_model(spec, len(tokenizer), tokenizer, job)
    else:
        model = weights.base_model(spec, job.base.path, job.precision)
    trainer = _trainer(spec, job, model, tokenizer, train, validation)
    return Session(
        trainer=trainer,
        evaluated=validation is not None,
        save=lambda output: save(trainer.model, tokenizer, spec, output, job.stop_token),
        stopping=spec.hyperparams.early_stopping if trainer.args.load_best_model_at_end else None,
        # Of several processes each holds a part of the model, or works on rows of its own.
        figures=lambda: loss_in_memory(trainer.model, plan_dir) if distributed.processes(job) == 1 else {},
        row_ids=lambda batch: batch_rows.rows_in(batch, train["row_id"], train["input_ids"]),
    )


def sft_arguments(spec: TrainJobSpec, job: TrainJob, count: int, evaluated: bool) -> dict[str, Any]:
    """The arguments of TRL's SFTConfig for `count` rows, or packed blocks."""
    return common_arguments(spec, job, count, evaluated) | {
        "max_length": spec.hyperparams.max_seq_len,
        "packing": spec.hyperparams.packing and spec.job_type != "PRETRAIN",
        "activation_checkpointing": job.gradient_checkpointing,
        # Rows come as tokens, truncated and packed already.
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


class _Trainer(SFTTrainer):
    """TRL's trainer over rows that are tokens already, in an order that does not depend on when it was started."""

    lengths: np.ndarray

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroups(self.lengths, size, self.args.seed)

    def floating_point_ops(self, inputs: Any) -> int:
        """None are counted: nobody reads them, and the library counts all parameters anew at every step."""
        return 0


def _trainer(
    spec: TrainJobSpec,
    job: TrainJob,
    model: Any,
    tokenizer: Any,
    train: dict[str, Any],
    validation: dict[str, Any] | None,
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
        peft_config=None if spec.method == "full" else weights.lora(spec, model),
    )
    if packing and job.device == "cpu":
        isolated.use(trainer.model)
    trainer.lengths = train["lengths"] if not packing else np.full(len(train_rows), length)
    if spec.method == "qlora":
        weights.keep_trained_in_fp32(trainer.model)
    distributed.shard_on_cpu(trainer)
    return trainer


def _dataset(columns: dict[str, Any], packed_length: int | None) -> datasets.Dataset:
    found = datasets.Dataset.from_dict({name: columns[name] for name in ("input_ids", "labels")})
    return pack_dataset(found, packed_length, "bfd") if packed_length else found


def save(model: Any, tokenizer: Any, spec: TrainJobSpec, output: Path, stop_token: str | None) -> str:
    """Write the weights that were trained, or the whole model where all were; gives their hash."""
    return weights.save(model, tokenizer, output, stop_token, full=spec.method == "full")
