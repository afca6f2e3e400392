"""Renders preference pairs to tokens (a prompt, two answers to it), and keeps them for planning and training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from images.train import batch_rows, sealed
from images.train.chat import Message, Template, Tools, blank_tokens, encode, prompt_ids
from resources.row_upgrade import MESSAGE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = {
    "row_id": pl.String,
    "prompt": pl.List(pl.Int32),
    "chosen": pl.List(pl.Int32),
    "rejected": pl.List(pl.Int32),
    "messages": pl.List(MESSAGE),
    "tools": pl.String,
}


@dataclass(frozen=True)
class Answer:
    """One answer behind its prompt, in tokens, up to and with the token that ends it."""

    prompt: list[int]
    answer: list[int]
    keeps_prefix: bool
    """The prompt's tokens are those that a server puts before an answer."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, cut to the allowed length together with it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    truncated: bool
    keeps_prefix: bool
    leading_bos: int
    stops: tuple[int | None, int | None]
    """Last token of each answer, when it was not cut."""

    @property
    def same(self) -> bool:
        return self.chosen == self.rejected

    @property
    def length(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def answers(
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
    prompts: Sequence[list[Message]],
    replies: Sequence[list[Message]],
    tools: Sequence[Tools] | None = None,
) -> list[Answer]:
    """Each reply behind its prompt, as the template renders the conversation of both."""
    blank = blank_tokens(tokenizer)
    tools = tools or [None] * len(prompts)
    whole = encode(tokenizer, template, [[*p, *r] for p, r in zip(prompts, replies, strict=True)], 1 << 30, tools)
    found = []
    for messages, row, some in zip(prompts, whole, tools, strict=True):
        prompt = prompt_ids(tokenizer, template, messages, some)
        keeps = row.ids[: len(prompt)] == prompt
        end = len(row.ids)
        # What a template writes after the token that ends a turn (a line end) is never generated.
        while end > len(prompt) and (not row.trained[end - 1] or row.ids[end - 1] in blank):
            end -= 1
        found.append(Answer(prompt, row.ids[len(prompt) : end], keeps))
    return found


def pairs(tokenizer: "PreTrainedTokenizerBase", template: Template, frame: pl.DataFrame, max_length: int) -> list[Pair]:
    """The pairs of `frame` (columns prompt, chosen, rejected: messages), each answer cut where it passes `max_length`.

    A prompt that leaves no room for an answer gives a pair of two empty answers.
    """
    found: list[Pair] = []
    bos = tokenizer.bos_token_id
    for batch in frame.iter_slices(512):
        prompts = batch["prompt"].to_list()
        tools = batch["tools"].to_list() if "tools" in batch.columns else None
        both = [answers(tokenizer, template, prompts, batch[name].to_list(), tools) for name in ("chosen", "rejected")]
        for chosen, rejected in zip(*both, strict=True):
            room = max(0, max_length - len(chosen.prompt))
            leading = 0
            while bos is not None and leading < len(chosen.prompt) and chosen.prompt[leading] == bos:
                leading += 1
            found.append(
                Pair(
                    prompt=chosen.prompt[:max_length],
                    chosen=chosen.answer[:room],
                    rejected=rejected.answer[:room],
                    truncated=max(len(chosen.answer), len(rejected.answer)) > room,
                    keeps_prefix=chosen.keeps_prefix and rejected.keeps_prefix,
                    leading_bos=leading,
                    stops=tuple(a.answer[-1] if 0 < len(a.answer) <= room else None for a in (chosen, rejected)),
                )
            )
    return found


def save(
    path: Path,
    ids: Sequence[str],
    found: Sequence[Pair],
    prompts: Sequence[list[Message]],
    tools: Sequence[str | None] | None = None,
) -> None:
    """Write token pairs as Parquet, beside the prompts as messages, which policy optimisation samples answers to."""
    frame = pl.DataFrame(
        {
            "row_id": list(ids),
            "prompt": [p.prompt for p in found],
            "chosen": [p.chosen for p in found],
            "rejected": [p.rejected for p in found],
            "messages": list(prompts),
            "tools": list(tools or [None] * len(ids)),
        },
        schema=SCHEMA,
    )
    sealed.write_parquet(frame, path)


def load(path: Path) -> pl.DataFrame:
    """Pairs as written by `save` that teach something: two answers which differ."""
    frame = sealed.read_parquet(path)
    some = (pl.col("chosen").list.len() > 0) & (pl.col("rejected").list.len() > 0)
    return frame.filter(some & (pl.col("chosen") != pl.col("rejected")))


def validation(plan_dir: Path, most: int = 512) -> pl.DataFrame | None:
    """The pairs of the validation split, at most `most`; None where there are none."""
    path = plan_dir / "validation.parquet"
    frame = load(path).head(most) if path.exists() else None
    return frame if frame is not None and frame.height else None


def preference_columns(frame: pl.DataFrame) -> dict[str, Any]:
    """The columns that TRL's DPO trainer takes: prompt_ids, chosen_ids, rejected_ids."""
    return {f"{name}_ids": frame[name].to_list() for name in ("prompt", "chosen", "rejected")}


def conversations(frame: pl.DataFrame, name: str) -> list[list[int]]:
    """Prompt and answer of each pair in one, for the answers in column `name`."""
    return [p + a for p, a in zip(frame["prompt"].to_list(), frame[name].to_list(), strict=True)]


def rows_in(batch: Any, frame: pl.DataFrame) -> list[str]:
    """Row ids of the pairs in a batch of TRL's preference trainers, found by the tokens of either conversation."""
    both = conversations(frame, "chosen") + conversations(frame, "rejected")
    return batch_rows.rows_in(batch, frame["row_id"].to_list() * 2, both)
