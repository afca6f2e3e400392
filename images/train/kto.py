"""Trains from answers found good or bad, by KTO (Ethayarajh et al. 2024, arXiv:2402.01306)."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.utils.data import SequentialSampler
from trl import KTOConfig, KTOTrainer

from images.train import unpaired
from images.train.answer_session import answer_session
from images.train.likelihood import answer_likelihoods
from images.train.progress import finite
from images.train.session import Session
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
    train = unpaired.load(plan_dir / "train.parquet")
    desirable = int(train["label"].sum())
    good, bad = balance(desirable, train.height - desirable, rlhf.desirable_weight, rlhf.undesirable_weight)
    return answer_session(
        spec,
        job,
        train,
        unpaired.validation(plan_dir),
        trainer=_Trainer,
        config=KTOConfig,
        columns=lambda frame: unpaired.columns(frame, spec.hyperparams.batch_size),
        figures=lambda trainer, pad, frame: figures(trainer, pad, frame, rlhf.kl_coeff),
        row_ids=unpaired.rows_in,
        desirable_weight=good,
        undesirable_weight=bad,
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
