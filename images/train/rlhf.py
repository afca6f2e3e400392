"""Trains from preferences: dpo on pairs, kto on rated answers, rloo and grpo against a reward model trained first."""

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import datasets
import numpy as np
import polars as pl
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from images.chat_rendering import keep_text
from images.train import kto, pairs, reward, session, sft, weights
from images.train.answer_session import answer_session
from images.train.chat import Template, choose_template
from images.train.heads import small_head
from images.train.likelihood import implicit_rewards
from images.train.probe import reference_in_memory
from images.train.progress import Diverged, diverged, finite
from images.train.reporter import Reporter
from images.train.session import Session, common_arguments
from llmops_assets.records.conversation import for_template
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec


def train(spec: TrainJobSpec, job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    """Train the policy, and before it its reward model where it needs one and none is given."""
    if spec.rlhf.algorithm == "kto":
        return session.train(lambda: kto.build(spec, job), spec, job, reporter)
    if spec.rlhf.algorithm == "dpo":
        return session.train(lambda: _dpo(spec, job), spec, job, reporter)
    reward_figures: dict[str, Any] = {}
    if job.reward is not None:
        judge = job.reward.path
    else:
        found = session.train_first(
            lambda first: reward.build(spec, first), "reward", spec, job, reporter, "reward model"
        )
        judge = str(Path(job.output).with_name("reward"))
        ends = {"reward_first_loss": found["first_loss"], "reward_last_loss": found["last_loss"]}
        reward_figures = {**found["figures"], **ends}
    return session.train(lambda: _policy(spec, job, judge, reward_figures), spec, job, reporter)


class _Dpo(reward.PairOrder, DPOTrainer):
    pass


def _dpo(spec: TrainJobSpec, job: TrainJob) -> Session:
    plan_dir = Path(job.plan_dir)
    train = pairs.load(plan_dir / "train.parquet")
    found = answer_session(
        spec,
        job,
        train,
        pairs.validation(plan_dir),
        trainer=_Dpo,
        config=DPOConfig,
        columns=pairs.preference_columns,
        figures=lambda trainer, pad, frame: implicit_rewards(
            trainer, pad, frame.to_dict(as_series=False), spec.rlhf.kl_coeff
        ),
        row_ids=pairs.rows_in,
    )
    found.trainer.lengths = reward.pair_lengths(train)
    return found


class _Finite:
    """Mixin: a loss or a reward that is no number ends the training, and so do odds of the next token that are none."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        number = self.state.global_step + 1
        try:
            return finite(super().training_step(*args, **kwargs), number)
        except RuntimeError as error:
            # What torch says of a policy that is asked for an answer and has none.
            if "probability tensor contains either" not in str(error):
                raise
            raise Diverged(diverged("nan", number)) from error

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL's model card names paths of this machine and is no card of ours."""


class _Rloo(_Finite, RLOOTrainer):
    pass


class _Grpo(_Finite, GRPOTrainer):
    pass


_TRAINERS = {"rloo": (_Rloo, RLOOConfig), "grpo": (_Grpo, GRPOConfig)}


def _policy(spec: TrainJobSpec, job: TrainJob, judge: str, reward_figures: dict[str, Any]) -> Session:
    """Policy optimisation against the reward model in folder `judge`; `reward_figures` is what is known of that."""
    plan_dir, rlhf = Path(job.plan_dir), spec.rlhf
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    # The trainer renders prompts by itself: a control token in one is text there too.
    tokenizer.apply_chat_template = MethodType(keep_text(type(tokenizer).apply_chat_template), tokenizer)
    frame = pairs.load(plan_dir / "train.parquet")
    room = spec.hyperparams.max_seq_len - rlhf.max_new_tokens
    frame = frame.filter(frame["prompt"].list.len() <= room).unique("prompt", maintain_order=True)
    if not frame.height:
        raise ValueError(
            f"no prompt leaves room for {rlhf.max_new_tokens} tokens in max_seq_len {spec.hyperparams.max_seq_len}: "
            "raise hyperparams.max_seq_len or lower rlhf.max_new_tokens"
        )
    model = weights.base_model(spec, job.base.path, job.precision)
    small_head(model)
    kind, config = _TRAINERS[rlhf.algorithm]
    arguments = common_arguments(spec, job, frame.height, False, steps=rlhf.ppo_steps) | {
        "beta": rlhf.kl_coeff,
        "num_generations": rlhf.num_generations,
        "max_completion_length": rlhf.max_new_tokens,
        "temperature": rlhf.temperature,
        "gradient_checkpointing": job.gradient_checkpointing,
    }
    del arguments["per_device_eval_batch_size"]
    reward_model = AutoModelForSequenceClassification.from_pretrained(
        judge, dtype=weights.DTYPES[job.precision], trust_remote_code=False, use_safetensors=True
    ).eval()
    trainer = kind(
        model=model,
        args=config(**arguments),
        reward_funcs=judge_of(reward_model, AutoTokenizer.from_pretrained(judge, trust_remote_code=False), tokenizer),
        train_dataset=datasets.Dataset.from_dict({"prompt": _prompts(frame), "row_id": frame["row_id"].to_list()}),
        processing_class=tokenizer,
        peft_config=None if spec.method == "full" else weights.lora(spec, model),
    )
    reward_model.to(trainer.accelerator.device)
    if spec.method == "qlora":
        weights.keep_trained_in_fp32(trainer.model)
    return Session(
        trainer=trainer,
        evaluated=False,
        save=lambda output: sft.save(trainer.model, tokenizer, spec, output, job.stop_token),
        figures=lambda: {
            **reward_figures,
            **_run_figures(trainer.state.log_history),
            **reference_in_memory(trainer, plan_dir),
        },
        # A prompt is there once for each answer that is sampled to it.
        row_ids=lambda batch: list(dict.fromkeys(row["row_id"] for row in batch)),
    )


def _prompts(frame: pl.DataFrame) -> list[list[dict[str, Any]]]:
    """The conversations that answers are sampled to, as TRL renders them."""
    found = [for_template(messages, tools) for messages, tools in frame.select("messages", "tools").iter_rows()]
    for row_id, (messages, tools) in zip(frame["row_id"].to_list(), found, strict=True):
        if tools or any("tool_calls" in message for message in messages):
            raise ValueError(
                f"row {row_id} has tools, and answers are sampled to prompts without any: train these preferences with "
                "rlhf.algorithm dpo, or leave such rows out"
            )
    return [messages for messages, _ in found]


def judge_of(model: Any, tokenizer: Any, writer: Any) -> Callable[..., list[float]]:
    """A reward function for TRL: answers as the reward model's own template renders them, ended only if they ended.

    `tokenizer` is the reward model's, `writer` that of the policy. An answer that was cut off at the length limit is
    scored without the token that ends an answer, so that never ending is not rewarded as if it had ended.
    """
    template = choose_template(tokenizer)
    tokenizer.chat_template = template.serving

    def reward_model(
        prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], **_: Any
    ) -> list[float]:
        ended = {writer.eos_token_id, *writer.all_special_ids}
        rows = rendered(tokenizer, template, prompts, completions, [ids[-1] in ended for ids in completion_ids])
        return reward.score(model, tokenizer.pad_token_id or 0, rows).tolist()

    return reward_model


def rendered(
    tokenizer: Any,
    template: Template,
    prompts: list[Any],
    replies: list[Any],
    ended: list[bool],
    tools: list[Any] | None = None,
) -> list[list[int]]:
    """Token rows of prompt and reply as a reward model is trained on them; without the end where a reply has none."""
    found = pairs.answers(tokenizer, template, prompts, replies, tools)
    return [a.prompt + (a.answer if end else a.answer[:-1]) for a, end in zip(found, ended, strict=True)]


def _run_figures(history: list[dict[str, Any]]) -> dict[str, float | None]:
    """Reward and divergence at the beginning and at the end (means over a tenth of the log), and the largest."""

    def ends(name: str) -> tuple[float, float, float] | tuple[None, None, None]:
        values = [float(e[name]) for e in history if e.get(name) is not None]
        if not values:
            return None, None, None
        tenth = max(1, len(values) // 10)
        return float(np.mean(values[:tenth])), float(np.mean(values[-tenth:])), float(np.max(np.abs(values)))

    first, last, _ = ends("reward")
    _, kl, most = ends("kl")
    _, cut, _ = ends("completions/clipped_ratio")
    found = {"policy_first_reward": first, "policy_last_reward": last, "kl": kl, "largest_kl": most, "answers_cut": cut}
    return {name: value for name, value in found.items() if value is not None}
