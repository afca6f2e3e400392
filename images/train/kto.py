"""Trains from answers found good or bad, by KTO (Ethayarajh et al. 2024, arXiv:2402.01306)."""

import contextlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
from torch.utils.data import SequentialSampler
from transformers import AutoTokenizer
from trl import KTOConfig, KTOTrainer

from images.train import sft, unpaired, weights
from images.train.heads import small_head
from images.train.likelihood import MEASURED, answer_likelihoods
from images.train.progress import finite
from images.train.session import Session, common_arguments
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.rated import balance


class _Trainer(KTOTrainer):
    """TRL's trainer on rows that are tokens already, in the order in which they were planned."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # The divergence of a batch was prepared for just these rows in it.
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return finite(super().training_step(*args, **kwargs), self.state.global_step + 1)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's model card names paths of this machine and is no card of ours."""


def build(spec: TrainJobSpec, job: TrainJob) -> Session:
    """The trainer of a policy on the planned rows of a job."""
    plan_dir, rlhf = Path(job.plan_dir), spec.rlhf
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    train, validation = unpaired.load(plan_dir / "train.parquet"), unpaired.validation(plan_dir)
    model = weights.base_model(spec, job.base.path, job.precision)
    small_head(model)
    desirable = int(train["label"].sum())
    good, bad = balance(desirable, train.height - desirable, rlhf.desirable_weight, rlhf.undesirable_weight)
    arguments = common_arguments(spec, job, train.height, validation is not None) | {
        "beta": rlhf.kl_coeff,
        "desirable_weight": good,
        "undesirable_weight": bad,
        "max_length": spec.hyperparams.max_seq_len,
        "gradient_checkpointing": job.gradient_checkpointing,
    }
    batch = spec.hyperparams.batch_size
    rows = [
        None if frame is None else datasets.Dataset.from_dict(unpaired.columns(frame, batch))
        for frame in (train, validation)
    ]
    trainer = _Trainer(
        model=model,
        args=KTOConfig(**arguments),
        train_dataset=rows[0],
        eval_dataset=rows[1],
        processing_class=tokenizer,
        peft_config=None if spec.method == "full" else weights.lora(spec, model),
    )
    if spec.method == "qlora":
        weights.keep_trained_in_fp32(trainer.model)
    measured = (validation if validation is not None else train).head(MEASURED)
    return Session(
        trainer=trainer,
        evaluated=validation is not None,
        save=lambda output: sft.save(trainer.model, tokenizer, spec, output, job.stop_token),
        stopping=spec.hyperparams.early_stopping if trainer.args.load_best_model_at_end else None,
        figures=lambda: figures(trainer, tokenizer.pad_token_id or 0, measured, rlhf.kl_coeff),
        row_ids=lambda found: unpaired.rows_in(found, train),
    )


def figures(trainer: Any, pad: int, frame: pl.DataFrame, beta: float) -> dict[str, float]:
    """How well the policy's implicit reward tells good answers from bad ones in `frame`.

    `reward_accuracy` is how often a good answer has the higher reward of the two, over all pairs of a good and a bad
    one (the area under the ROC curve); `chosen_change` what the good ones' likelihood won or lost, in nats a token.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    reference, aside = trainer.ref_model, contextlib.nullcontext()
    if reference is None:
        reference, aside = model, model.disable_adapter()
    rows = list(zip(frame["prompt"].to_list(), frame["completion"].to_list(), strict=True))

    def likelihoods(judge: Any) -> np.ndarray:
        training = judge.training
        judge.eval()
        with trainer.accelerator.autocast():
            found = answer_likelihoods(judge, trainer.accelerator.device, rows, pad)
        judge.train(training)
        return found

    policy = likelihoods(model)
    with aside:
        won = policy - likelihoods(reference)
    label = frame["label"].to_numpy()
    good, bad = won[label], won[~label]
    tokens = sum(len(answer) for (_, answer), own in zip(rows, label, strict=True) if own)
    found = {"reward_pairs": float(len(won))}
    if len(good):
        found |= {"chosen_reward": float(beta * good.mean()), "chosen_change": float(good.sum() / max(1, tokens))}
    if len(bad):
        found["rejected_reward"] = float(beta * bad.mean())
    if len(good) and len(bad):
        higher = (good[:, None] > bad[None, :]).mean() + 0.5 * (good[:, None] == bad[None, :]).mean()
        found["reward_accuracy"] = float(higher)
    return found
