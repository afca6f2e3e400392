"""Renders answers that people found good or bad (a prompt, one answer, a label) to tokens, and keeps them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from images.train import batch_rows, pairs, sealed
from images.train.chat import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEMA = {
    "row_id": pl.String,
    "prompt": pl.List(pl.Int32),
    "completion": pl.List(pl.Int32),
    "label": pl.Boolean,
}


@dataclass(frozen=True)
class Rated:
    """One answer behind its prompt, cut to the allowed length together with it, and whether it was found good."""

    prompt: list[int]
    completion: list[int]
    label: bool
    truncated: bool
    keeps_prefix: bool
    leading_bos: int
    stop: int | None
    """Last token of the answer, when it was not cut."""

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


def rated(tokenizer: "PreTrainedTokenizerBase", template: Template, frame: pl.DataFrame, longest: int) -> list[Rated]:
    """The rows of `frame` (prompt, completion: messages; tools; label), each answer cut where it passes `longest`.

    A prompt that leaves no room for an answer gives an empty one.
    """
    found: list[Rated] = []
    bos = tokenizer.bos_token_id
    for batch in frame.iter_slices(512):
        columns = (batch[name].to_list() for name in ("prompt", "completion", "tools"))
        answers = pairs.answers(tokenizer, template, *columns)
        for one, label in zip(answers, batch["label"].to_list(), strict=True):
            room = max(0, longest - len(one.prompt))
            leading = 0
            while bos is not None and leading < len(one.prompt) and one.prompt[leading] == bos:
                leading += 1
            found.append(
                Rated(
                    prompt=one.prompt[:longest],
                    completion=one.answer[:room],
                    label=label,
                    truncated=len(one.answer) > room,
                    keeps_prefix=one.keeps_prefix,
                    leading_bos=leading,
                    stop=one.answer[-1] if 0 < len(one.answer) <= room else None,
                )
            )
    return found


def save(path: Path, ids: Sequence[str], found: Sequence[Rated], seed: int) -> None:
    """Write rows as Parquet in the order in which they are trained: good and bad ones evenly mixed.

    TRL reads them in this order, because the divergence of a batch is estimated from its own neighbours.
    """
    rows = [(i, r.prompt, r.completion, r.label) for i, r in zip(ids, found, strict=True)]
    frame = pl.DataFrame([rows[i] for i in mixed([r.label for r in found], seed)], schema=SCHEMA, orient="row")
    sealed.write_parquet(frame, path)


def mixed(labels: Sequence[bool], seed: int) -> list[int]:
    """Places of all rows in an order in which both labels are spread evenly, and otherwise at random."""
    rng = random.Random(seed)
    spread: list[tuple[float, int]] = []
    for label in (True, False):
        places = [i for i, own in enumerate(labels) if own is label]
        rng.shuffle(places)
        spread += [((at + rng.random()) / len(places), place) for at, place in enumerate(places)]
    return [place for _, place in sorted(spread)]


def load(path: Path) -> pl.DataFrame:
    """Rows as written by `save` that teach something: with an answer."""
    frame = sealed.read_parquet(path)
    return frame.filter(pl.col("completion").list.len() > 0)


def validation(plan_dir: Path, most: int = 512) -> pl.DataFrame | None:
    """The rows of the validation split, at most `most`; None where there are none."""
    path = plan_dir / "validation.parquet"
    frame = load(path).head(most) if path.exists() else None
    return frame if frame is not None and frame.height > 1 else None


def columns(frame: pl.DataFrame, batch: int) -> dict[str, Any]:
    """The columns that TRL's KTO trainer takes.

    The divergence of a batch of `batch` rows is estimated from its prompts, each with the answer of the row before
    (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.1).
    """
    answers = frame["completion"].to_list()
    shifted: list[list[int]] = []
    for start in range(0, len(answers), batch):
        part = answers[start : start + batch]
        shifted += [part[-1], *part[:-1]]
    return {
        "prompt_ids": frame["prompt"].to_list(),
        "completion_ids": answers,
        "KL_completion_ids": shifted,
        "label": frame["label"].to_list(),
    }


def rows_in(batch: Any, frame: pl.DataFrame) -> list[str]:
    """Row ids of the rows in a batch of TRL's trainer, found by their tokens."""
    whole = [p + c for p, c in zip(frame["prompt"].to_list(), frame["completion"].to_list(), strict=True)]
    return batch_rows.rows_in(batch, frame["row_id"].to_list(), whole)
