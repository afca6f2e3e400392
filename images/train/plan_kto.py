"""Plans a training on answers found good or bad: the rows as they will be weighed, and what in them teaches nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from images.train import unpaired
from images.train.marked_texts import Conversation, last_answer
from images.train.plan_answers import Answers, Planned, common_facts, example, plan
from images.train.reporter import Reporter
from images.train.unpaired import Rated
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.rated import balance, ratio

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plan_kto(
    spec: TrainJobSpec,
    frames: dict[str, pl.DataFrame],
    base: Path,
    folder: Path,
    reporter: Reporter,
    date: str | None = None,
) -> dict[str, Any]:
    """Render the rows of `frames` (prompt, completion, label, tools), keep them in `folder`, and say what they are."""
    kind = Answers(
        name="rated answers",
        conversations=_conversations,
        render=unpaired.rated,
        save=lambda file, frame, found: unpaired.save(file, frame["row_id"].to_list(), found, spec.hyperparams.seed),
        token_ids=lambda one: (*one.prompt, *one.completion),
        facts=_facts,
    )
    return plan(kind, spec, frames, base, folder, reporter, date)


def _conversations(frame: pl.DataFrame) -> Iterator[Conversation]:
    return (last_answer(*row) for row in frame.select("row_id", "prompt", "completion", "tools").iter_rows())


def _facts(
    tokenizer: "PreTrainedTokenizerBase", spec: TrainJobSpec, found: Planned[Rated], frame: pl.DataFrame
) -> dict[str, Any]:
    wrong = {
        "no_trainable_tokens": [i for i, one in found if not one.completion],
        "both_labels": _both_labels(frame),
    }
    label = np.array([one.label for _, one in found])
    answers = np.array([len(one.completion) for _, one in found])
    prompts = np.array([len(one.prompt) for _, one in found])
    facts = common_facts(
        tokenizer, found, lambda one: (one.stop,), wrong, answer_tokens=int(answers.sum()), sequences=1
    )
    good, bad = int(label.sum()), int((~label).sum())
    weights = balance(good, bad, spec.rlhf.desirable_weight, spec.rlhf.undesirable_weight)
    shown = {one.label: one for _, one in reversed(found)}
    names = {True: "desirable", False: "undesirable"}
    return facts | {
        # Each is read a second time, behind another prompt, for the divergence from the reference.
        "tokens": 2 * facts["tokens"],
        "example": "\n\n".join(
            example(tokenizer, shown[own], names[own], shown[own].completion) for own in names if own in shown
        ),
        "figures": {
            "pairs": len(found),
            "desirable": good,
            "undesirable": bad,
            "desirable_weight": weights[0],
            "undesirable_weight": weights[1],
            "weight_ratio": ratio(good, bad, weights),
            "same_pairs": len(wrong["no_trainable_tokens"]),
            "both_labels": len(wrong["both_labels"]),
            "prompt_tokens_mean": float(prompts.mean()),
            "chosen_tokens_mean": float(answers[label].mean()) if good else 0.0,
            "rejected_tokens_mean": float(answers[~label].mean()) if bad else 0.0,
            "chosen_longer": _longer(answers[label], answers[~label]),
            "prompts_without_room": int((prompts >= spec.hyperparams.max_seq_len).sum()),
        },
    }


def _both_labels(frame: pl.DataFrame) -> list[str]:
    """Rows whose very answer to the very prompt is found good in one row and bad in another."""
    texts = [
        pl.col(name).list.eval(pl.element().struct.field("content")).list.join("\x1e")
        for name in ("prompt", "completion")
    ]
    whole = frame.select("row_id", "label", pl.concat_str(texts, separator="\x1f").alias("whole"))
    twice = whole.group_by("whole").agg(pl.col("label").n_unique().alias("labels")).filter(pl.col("labels") > 1)
    return whole.join(twice, on="whole", how="semi", maintain_order="left")["row_id"].to_list()


def _longer(good: np.ndarray, bad: np.ndarray) -> float:
    """How often a good answer is the longer one of a good and a bad one; half where nothing tells."""
    if not len(good) or not len(bad):
        return 0.5
    below = np.searchsorted(np.sort(bad), good, side="left") + np.searchsorted(np.sort(bad), good, side="right")
    return float(below.mean() / (2 * len(bad)))
