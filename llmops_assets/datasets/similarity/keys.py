"""What rows are compared by once their texts are gone: hashes, MinHash sketches, and counts of what many rows share."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from llmops_assets.datasets import schema, texts
from llmops_assets.datasets.memory import give_back
from llmops_assets.datasets.similarity import shared_text, sketch, word_diff
from llmops_assets.datasets.similarity.normal import normalise
from llmops_assets.records.conversation import TOOLS
from llmops_assets.specs.dataset_rules import MinHash

PROMPT_BANDS, PROMPT_ROWS = 20, 4
"""Bands that find prompts, and what is left of rows beside shared text, at a similarity of .7: 0.4 % are missed."""


@dataclass(frozen=True)
class Near:
    """Which rows are near duplicates: `bands` × `rows` hash values, character `shingle`-grams, Jaccard ≥ `jaccard`.

    `facts` says what becomes of documents that differ in facts alone (`differences`): each is kept, or all but one
    dropped. Rows that ask something are kept whenever they differ in one.
    """

    bands: int = 20
    rows: int = 6
    shingle: int = 5
    jaccard: float = 0.8
    seed: int = 1
    facts: Literal["keep", "drop"] = "keep"

    @classmethod
    def of(cls, policy: MinHash) -> "Near":
        """What counts as a near duplicate, as the policy has it."""
        return cls(**policy.model_dump())

    def heeds_facts(self, dataset_type: str) -> bool:
        """Whether rows of a type that differ in a fact are two rows."""
        return self.facts == "keep" or texts.has_prompt(dataset_type)


def normalised(rows: pl.DataFrame, dataset_type: str, cased: bool = False) -> pl.DataFrame:
    """The normalised `prompt`, `answer` and `whole` text of each row; `prompt` is null where the type has none.

    With `cased` code keeps its case, as where rows are compared that may differ in it alone.
    """
    parts = [normalise(part, cased) for part in rows.select(texts.parts_of(dataset_type))]
    whole = parts[0] if len(parts) == 1 else pl.select(pl.concat_str(parts, separator=" ")).to_series()
    prompt = parts[0] if texts.has_prompt(dataset_type) else pl.Series([None] * rows.height, dtype=pl.String)
    answer = parts[1] if texts.has_prompt(dataset_type) else parts[0]
    return pl.DataFrame({"prompt": prompt, "answer": answer, "whole": whole})


_TURNS = {"sft_pair": "messages", "eval_suite": "messages", "rlhf_pair": "prompt", "kto": "prompt"}
"""Where a system turn may be."""


def spoken(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """The rows without their system turns, which say nothing of how alike two rows are: all of a dataset may share
    one that is longer than question and answer."""
    name = _TURNS.get(dataset_type)
    if name is None or not rows[name].list.eval(pl.element().struct.field("role") == "system").list.any().any():
        return rows
    return rows.with_columns(texts.without_system(pl.col(name)))


def prompts(rows: pl.DataFrame, dataset_type: str) -> pl.Series:
    """The normalised prompt of each row, null where the type has none."""
    # Beside the other columns: a literal null alone would be one row, however many there are.
    return normalise(rows.with_columns(texts.prompt_of(dataset_type).alias("prompt"))["prompt"])


@dataclass(frozen=True)
class Keys:
    """What rows are compared by, without their texts.

    `table`: row_id, two hashes of the whole text, one of it without spaces and punctuation (`bare`), one of prompt and
    answer each (null where there is none), and one of all digits (`numbers`); the tools of a row and how it was judged
    are in those of its whole text and in its numbers. `bands` and `low` are `sketch.sketches` of the whole texts
    without system turns, `asked` and `asked_low` those of the prompts. `slots` is where words and runs of words are
    counted, with how many of them each row has.
    """

    table: pl.DataFrame
    bands: np.ndarray
    low: np.ndarray
    asked: np.ndarray
    asked_low: np.ndarray
    slots: shared_text.Slots | None


def columns(dataset_type: str) -> list[str]:
    """The columns that `keys` needs of a table."""
    return ["row_id", *schema.CONTENT[dataset_type], *schema.JUDGED.get(dataset_type, {})]


def _beside(rows: pl.DataFrame, dataset_type: str) -> pl.Series:
    """What is learned of each row beside its text: the tools that it offers, and how it was judged; null of neither."""
    names = [name for name in (TOOLS, *schema.JUDGED.get(dataset_type, {})) if name in rows.columns]
    given = [rows[name].cast(pl.String) for name in names]
    if not given:
        return pl.Series([None] * rows.height, dtype=pl.String)
    whole = pl.concat_str(given, separator="\x1f", ignore_nulls=True)
    return pl.select(pl.when(pl.any_horizontal(*(part.is_not_null() for part in given))).then(whole)).to_series()


def keys(rows: pl.DataFrame, dataset_type: str, how: Near | None) -> Keys:
    """The keys of one batch (row_id and content columns); without `how` only the table of hashes of whole texts."""
    text = normalised(rows, dataset_type, cased=True)
    # Rows that offer other tools, or were judged otherwise, are no repeats, however alike they read.
    offered = _beside(rows, dataset_type)
    identity = pl.concat_str("whole", offered, separator="\x1f", ignore_nulls=True)
    table = text.select(
        rows["row_id"],
        identity.hash(1).alias("whole"),
        identity.hash(2).alias("whole2"),
        # Who asks the same with other capitals asks the same.
        pl.when(pl.col("prompt").is_not_null()).then(pl.col("prompt").str.to_lowercase().hash(3)).alias("prompt"),
        pl.when(pl.col("answer").is_not_null()).then(pl.col("answer").str.to_lowercase().hash(4)).alias("answer"),
    )
    nothing = np.empty((0, rows.height), np.uint32), np.empty((rows.height, 0), np.uint8)
    if how is None:
        return Keys(table, *nothing, *nothing, None)
    whole = sketch.buffers(text["whole"])
    tools = pl.select(pl.when(offered.is_null()).then(0).otherwise(offered.hash(5))).to_series().to_numpy()
    table = table.with_columns(
        pl.Series("bare", word_diff.bare(whole) ^ tools),
        pl.Series("numbers", word_diff.digits(whole) ^ (tools >> np.uint64(32)).astype(np.uint32)),
    )
    without_system = spoken(rows, dataset_type)
    compared = text if without_system is rows else normalised(without_system, dataset_type, cased=True)
    bands, low = sketch.sketches(compared["whole"], how.shingle, how.bands, how.rows, how.seed)
    if texts.has_prompt(dataset_type):
        asked, asked_low = sketch.sketches(compared["prompt"], how.shingle, PROMPT_BANDS, PROMPT_ROWS, how.seed)
    else:
        asked, asked_low = nothing
    return Keys(table, bands, low, asked, asked_low, shared_text.slots(text["whole"]))


def some_keys(found: Keys, wanted: pl.Series) -> Keys:
    """The keys of the rows that `wanted` (booleans) says."""
    mask = wanted.to_numpy()
    return Keys(
        table=found.table.filter(wanted),
        bands=found.bands[:, mask],
        low=found.low[mask],
        asked=found.asked[:, mask],
        asked_low=found.asked_low[mask],
        slots=found.slots.of_rows(mask) if found.slots is not None else None,
    )


@dataclass
class Gathered:
    """The keys of all batches in order, batch by batch, and what many of the rows share."""

    counts: shared_text.Counts = field(default_factory=shared_text.Counts)
    _tables: list[pl.DataFrame] = field(default_factory=list)
    _arrays: dict[str, list[np.ndarray]] = field(
        default_factory=lambda: {"bands": [], "low": [], "asked": [], "asked_low": []}
    )

    def __bool__(self) -> bool:
        return bool(self._tables)

    def add(self, part: Keys) -> None:
        """Keep the keys of one batch more, and count its words."""
        self._tables.append(part.table)
        for name, found in self._arrays.items():
            found.append(getattr(part, name))
        if part.slots is not None:
            self.counts.add(part.slots, part.table.height)

    @property
    def table(self) -> pl.DataFrame:
        """The tables of all batches, until they are joined."""
        return pl.concat(self._tables)

    def joined_table(self) -> pl.DataFrame:
        """The tables of all batches as one; can be asked once, because the parts are let go."""
        table = pl.concat(self._tables, rechunk=True)
        self._tables.clear()
        return table

    def joined(self, table: pl.DataFrame, wanted: np.ndarray) -> Keys:
        """The keys of the rows that `wanted` (booleans, one for each row of all batches) says, whose table is `table`;
        can be asked once."""
        whole = {}
        for name, axis in (("bands", 1), ("low", 0), ("asked", 1), ("asked_low", 0)):
            # One after another, each dropped once it is joined: all at once would be held twice.
            parts = self._arrays.pop(name)
            some, begin = [], 0
            for part in parts:
                end = begin + part.shape[axis]
                mine = wanted[begin:end]
                some.append(part if mine.all() else part[:, mine] if axis else part[mine])
                begin = end
            del parts
            whole[name] = np.concatenate(some, axis=axis)
            del some
        if table.height >= _MANY:
            give_back()
        return Keys(table=table, slots=None, **whole)


_MANY = 50_000
"""Rows whose arrays are worth the tenth of a second that it takes to hand their memory back."""


def gathered(parts: Iterable[Keys]) -> Gathered:
    """The keys of all batches, in order."""
    result = Gathered()
    for part in parts:
        result.add(part)
    return result
