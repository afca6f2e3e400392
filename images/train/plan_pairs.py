"""Plans a training on preferences: the pairs as they will be compared, and what in them teaches nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from images.train import pairs
from images.train.marked_texts import Conversation, last_answer
from images.train.pairs import Pair
from images.train.plan_answers import Answers, Planned, common_facts, example, plan
from images.train.reporter import Reporter
from llmops_assets.specs.training import TrainJobSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plan_pairs(
    spec: TrainJobSpec,
    frames: dict[str, pl.DataFrame],
    base: Path,
    folder: Path,
    reporter: Reporter,
    date: str | None = None,
) -> dict[str, Any]:
    """Render the pairs of `frames` (prompt, chosen, rejected), keep them in `folder`, and tell what they are."""
    if spec.rlhf.algorithm == "kto":
        from images.train.plan_kto import plan_kto

        return plan_kto(spec, frames, base, folder, reporter, date)
    kind = Answers(
        name="pairs",
        conversations=_conversations,
        render=pairs.pairs,
        save=_save,
        token_ids=lambda pair: (*pair.prompt, *pair.chosen, *pair.rejected),
        facts=_facts,
    )
    return plan(kind, spec, frames, base, folder, reporter, date)


def _conversations(frame: pl.DataFrame) -> Iterator[Conversation]:
    """Both conversations of every pair, of which the last answer alone is trained."""
    for row_id, prompt, chosen, rejected, tools in frame.select(
        "row_id", "prompt", "chosen", "rejected", "tools"
    ).iter_rows():
        yield last_answer(row_id, prompt, chosen, tools)
        yield last_answer(row_id, prompt, rejected, tools)


def _save(file: Path, frame: pl.DataFrame, found: list[Pair]) -> None:
    pairs.save(file, frame["row_id"].to_list(), found, frame["prompt"].to_list(), frame["tools"].to_list())


def _facts(
    tokenizer: "PreTrainedTokenizerBase", spec: TrainJobSpec, found: Planned[Pair], frame: pl.DataFrame
) -> dict[str, Any]:
    wrong = {
        "no_trainable_tokens": [i for i, p in found if not p.chosen or not p.rejected],
        "same_pairs": [i for i, p in found if p.chosen and p.same],
        "opposed_pairs": _opposed(found),
    }
    chosen = np.array([len(p.chosen) for _, p in found])
    rejected = np.array([len(p.rejected) for _, p in found])
    prompts = np.array([len(p.prompt) for _, p in found])
    answers = int(chosen.sum() + rejected.sum())
    facts = common_facts(tokenizer, found, lambda pair: pair.stops, wrong, answer_tokens=answers, sequences=2)
    differing = chosen != rejected
    shown = next((pair for _, pair in found if not pair.same), found[0][1])
    both = (("chosen", shown.chosen), ("rejected", shown.rejected))
    return facts | {
        "example": "\n\n".join(example(tokenizer, shown, name, answer) for name, answer in both),
        "figures": {
            "pairs": len(found),
            "same_pairs": len(wrong["same_pairs"]),
            "opposed_pairs": len(wrong["opposed_pairs"]),
            "prompt_tokens_mean": float(prompts.mean()),
            "chosen_tokens_mean": float(chosen.mean()),
            "rejected_tokens_mean": float(rejected.mean()),
            # A reward that is length is the fault that preference data breeds most often.
            "chosen_longer": float((chosen > rejected)[differing].mean()) if differing.any() else 0.5,
            "prompts_without_room": int((prompts > _room(spec)).sum()),
        },
    }


def _opposed(found: Planned[Pair]) -> list[str]:
    """Pairs whose two answers another pair with the same prompt prefers the other way round."""
    known = {(*map(tuple, (p.prompt, p.chosen, p.rejected)),) for _, p in found if not p.same}
    return [i for i, p in found if not p.same and (tuple(p.prompt), tuple(p.rejected), tuple(p.chosen)) in known]


def _room(spec: TrainJobSpec) -> int:
    """The longest prompt that an answer can be sampled behind."""
    return spec.hyperparams.max_seq_len - (spec.rlhf.max_new_tokens or 1)
