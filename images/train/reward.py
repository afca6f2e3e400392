"""Trains a reward model: a language model with one number for a head, which tells preferred answers from others."""

import contextlib
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from images.train import pairs, weights
from images.train.likelihood import MEASURED
from images.train.order import LengthGroups
from images.train.progress import finite
from images.train.session import Session, common_arguments
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec
from resources import content


class PairOrder:
    """Mixin for TRL's trainers: rows that are tokens already, in batches of like length, stopped at a broken loss."""

    lengths: np.ndarray

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroups(self.lengths, size, self.args.seed)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return finite(super().training_step(*args, **kwargs), self.state.global_step + 1)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's model card names paths of this machine and is no card of ours."""


class _Trainer(PairOrder, RewardTrainer):
    pass


def build(spec: TrainJobSpec, job: TrainJob) -> Session:
    """The trainer of the reward model of a job: from the policy's own base, on the planned pairs."""
    plan_dir, base = Path(job.plan_dir), job.base.path
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    train, validation = pairs.load(plan_dir / "train.parquet"), pairs.validation(plan_dir)
    model = weights.base_model(spec, base, job.precision, AutoModelForSequenceClassification, num_labels=1)
    arguments = common_arguments(spec, job, train.height, validation is not None) | {
        "learning_rate": spec.rlhf.reward_lr or spec.hyperparams.lr,
        "max_length": spec.hyperparams.max_seq_len,
        "gradient_checkpointing": job.gradient_checkpointing,
        "load_best_model_at_end": False,
        "metric_for_best_model": None,
    }
    trainer = _Trainer(
        model=model,
        args=RewardConfig(**arguments),
        train_dataset=_rows(train),
        eval_dataset=_rows(validation) if validation is not None else None,
        processing_class=tokenizer,
        peft_config=None if spec.method == "full" else weights.lora(spec, model, "SEQ_CLS", ["score"]),
    )
    trainer.lengths = pair_lengths(train)
    if spec.method == "qlora":
        weights.keep_trained_in_fp32(trainer.model)
    measured = (validation if validation is not None else train).head(MEASURED)
    dtype = weights.DTYPES[job.precision]

    def save(output: Path) -> str:
        whole = weights.merged(
            trainer.model, spec.method, base, dtype, AutoModelForSequenceClassification, num_labels=1
        )
        whole.config.pad_token_id = tokenizer.pad_token_id
        whole.save_pretrained(output)
        tokenizer.save_pretrained(output)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(output / "README.md")
        return content.content_hash(output)

    return Session(
        trainer=trainer,
        evaluated=validation is not None,
        save=save,
        figures=lambda: figures(trainer.model, tokenizer.pad_token_id, measured),
        row_ids=lambda batch: pairs.rows_in(batch, train),
    )


def pair_lengths(frame: pl.DataFrame) -> np.ndarray:
    """Tokens of the longer of the two conversations of each pair."""
    answer = pl.max_horizontal(pl.col("chosen").list.len(), pl.col("rejected").list.len())
    return frame.select(pl.col("prompt").list.len() + answer).to_series().to_numpy()


def figures(model: Any, pad: int, frame: pl.DataFrame) -> dict[str, float]:
    """How well a reward model tells the pairs of `frame` apart.

    `answer_spread` is what of the reward's spread the answer makes: the mean difference of the two rewards of a pair,
    in standard deviations of all rewards. It is near zero for a model that looks at the prompt alone.
    """
    chosen, rejected = (score(model, pad, pairs.conversations(frame, name)) for name in ("chosen", "rejected"))
    spread = float(np.concatenate([chosen, rejected]).std())
    return {
        "reward_accuracy": float((chosen > rejected).mean()),
        "reward_pairs": float(len(chosen)),
        "reward_margin": float((chosen - rejected).mean()),
        "answer_spread": float(np.abs(chosen - rejected).mean() / spread) if spread > 0 else 0.0,
    }


@torch.inference_mode()
def score(model: Any, pad: int, rows: list[list[int]], tokens_a_batch: int = 8192) -> np.ndarray:
    """The reward of each token row, float64 of shape (rows,); rows of like length go together."""
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    rewards = np.zeros(len(rows))
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * len(rows[order[end]]) <= tokens_a_batch:
            end += 1
        batch = order[start:end]
        width = len(rows[batch[-1]])
        ids = torch.full((len(batch), width), pad, dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for at, index in enumerate(batch):
            ids[at, : len(rows[index])] = torch.tensor(rows[index])
            mask[at, : len(rows[index])] = 1
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits[:, 0]
        rewards[batch] = logits.double().cpu().numpy()
        start = end
    model.train(was_training)
    return rewards


def _rows(frame: pl.DataFrame) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {f"{name}_ids": pairs.conversations(frame, name) for name in ("chosen", "rejected")}
    )
