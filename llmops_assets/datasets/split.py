"""Train, validation and test: stratified, kept together where rows belong together, and stable as rows are added."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, schema, texts
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.verdict import Verdict

SPLITS = ("train", "validation", "test")
NO_CATEGORY = "(none)"
VARIANTS = "variants of "
"""What the names of clusters of variants begin with."""
TOLERANCE = 0.1
"""How far the share of a stratum in a split may be off, relative to what is wanted, before units are moved."""


def metadata(rows: pl.DataFrame, field: str) -> pl.Series:
    """A field of each row's metadata as text: a column of the table, or a key of `extra` (``a.b`` reaches inside)."""
    if field in ("category", "source", "file"):
        return rows[field].cast(pl.String)
    path = "$." + ".".join(f"['{part}']" if not part.isidentifier() else part for part in field.split("."))
    return rows["extra"].str.json_path_match(path.replace(".[", "[")).rename(field)


def fields(rows: batches.Batches, field: str) -> pl.Series:
    """`metadata` of a table in batches."""
    columns = [field] if field in ("category", "source", "file") else ["extra"]
    return pl.concat([metadata(batch, field) for batch in batches.regrouped(rows(columns))])


def asked(rows: batches.Batches, dataset_type: str) -> pl.Series:
    """A hash of what is asked in each row: the normalised prompt, of a plain document the whole text."""

    def look(batch: pl.DataFrame) -> pl.Series:
        text = duplicates.normalised(batch, dataset_type)
        return text.select(pl.coalesce("prompt", "whole").hash(3).alias("asked")).to_series()

    columns = texts.content_columns(dataset_type)
    return pl.concat(batches.mapped(look, batches.regrouped(rows(columns))))


LONG_QUESTION = 12
"""Characters of a question below which several conversations may well begin or go on with it."""


def leaked_turns(rows: batches.Batches, split: pl.Series, dataset_type: str) -> list[str]:
    """The row_ids of held-out rows whose one question and answer are a turn of a longer training conversation.

    Their prompts differ, so that `asked` tells nothing of it.
    """
    if "messages" not in schema.CONTENT[dataset_type]:
        return []

    def look(batch: pl.DataFrame) -> pl.DataFrame:
        turn = pl.element().struct
        said = pl.col("messages").list.eval(
            pl.when((turn.field("role") == "assistant") & (turn.field("role").shift(1) == "user")).then(
                pl.struct(question=turn.field("content").shift(1), answer=turn.field("content"))
            )
        )
        table = batch.select("row_id", said.list.drop_nulls().alias("turn"))
        table = table.with_columns(turns=pl.col("turn").list.len()).explode("turn").drop_nulls("turn").unnest("turn")
        question, answer = (duplicates.normalise(table[name].fill_null("")) for name in ("question", "answer"))
        table = table.with_columns(exchange=pl.concat_str(pl.lit(question), pl.lit(answer), separator="\n").hash(3))
        return table.filter(question.str.len_chars() >= LONG_QUESTION).select("row_id", "turns", "exchange")

    found = list(batches.mapped(look, batches.regrouped(rows(["row_id", "messages"]))))
    turns = pl.concat(found) if found else pl.DataFrame(schema={"row_id": pl.String, "turns": pl.UInt32})
    if not turns.height or turns["turns"].max() == 1:
        return []
    ids = pl.concat([batch["row_id"] for batch in rows(["row_id"])])
    turns = turns.join(pl.DataFrame({"row_id": ids, "split": split}), on="row_id")
    trained = turns.filter((pl.col("split") == "train") & (pl.col("turns") > 1))["exchange"].unique()
    held_out = turns.filter((pl.col("split") != "train") & (pl.col("turns") == 1))
    return held_out.filter(pl.col("exchange").is_in(trained.implode()))["row_id"].unique().sort().to_list()


def traits(
    rows: pl.DataFrame | batches.Batches, dataset_type: str, *, stratify_by: str | None, group_by: str | None
) -> pl.DataFrame:
    """What rows are divided by: row_id, `prompt` (a hash of the normalised one), `stratum` and `group`."""

    def look(batch: pl.DataFrame) -> pl.DataFrame:
        prompt = duplicates.prompts(batch, dataset_type)
        empty = pl.Series([None] * batch.height, dtype=pl.String)
        return pl.DataFrame(
            {
                "row_id": batch["row_id"],
                "prompt": pl.select(pl.when(prompt.is_not_null()).then(prompt.hash(3))).to_series(),
                "stratum": metadata(batch, stratify_by) if stratify_by else empty,
                "group": metadata(batch, group_by) if group_by else empty,
            }
        )

    return pl.concat(batches.mapped(look, batches.regrouped(batches.of(rows)(None))), rechunk=True)


def together(clusters: pl.DataFrame, variants: pl.DataFrame) -> pl.DataFrame:
    """Rows that are to stay in one split because they say nearly the same: row_id, cluster; a row of a cluster of near
    duplicates that is a variant of other rows, too, is there twice."""
    return pl.concat(
        [
            clusters.select("row_id", pl.col("cluster")),
            # Named apart: a row may be the first of its near duplicates and of other rows' variants.
            variants.select("row_id", (VARIANTS + pl.col("variants")).alias("cluster")),
        ]
    )


def units(table: pl.DataFrame, clusters: pl.DataFrame | None) -> np.ndarray:
    """For each row of `traits` the number of the first row of its unit: rows that must not be parted.

    Together stay near duplicates and variants (`clusters`: row_id, cluster), rows with the same prompt, and rows of one
    group. int64 of shape (rows,).
    """
    number = pl.int_range(pl.len(), dtype=pl.Int64).alias("number")
    keys = [table.select(number, pl.col(name).alias("key")) for name in ("prompt", "group")]
    if clusters is not None and clusters.height:
        keys.append(
            table.select(number, "row_id")
            .join(clusters.select("row_id", pl.col("cluster").alias("key")), on="row_id")
            .select("number", "key")
        )
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for key in keys:
        linked = key.drop_nulls("key").with_columns(first=pl.col("number").min().over("key"))
        linked = linked.filter(pl.col("number") != pl.col("first"))
        pairs.append(linked.select("first", "number").to_numpy().reshape(-1, 2).astype(np.int64))
    return duplicates.components(table.height, np.concatenate(pairs))


def position(key: str, seed: int) -> float:
    """Where a unit stands between 0 and 1, by its key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign(
    rows: pl.DataFrame | batches.Batches,
    dataset_type: str,
    *,
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1),
    stratify_by: str | None = "category",
    group_by: str | None = None,
    clusters: pl.DataFrame | None = None,
    seed: int = 0,
) -> pl.Series:
    """The split of each row: ``train``, ``validation`` or ``test``.

    A unit goes where the hash of its first row (of its `group_by` value where there is one) falls, so that added rows
    move none of the old ones. Only where a stratum's share is off by more than a tenth are the units nearest to the
    boundary moved. A stratum with three units or more has one in every split; with fewer, train comes first, then
    test. Every row of an evaluation suite is a test row. Raises ValueError when the ratios do not add up to one.
    """
    if abs(sum(ratios) - 1) > 1e-6 or min(ratios) < 0:
        raise ValueError(f"ratios {ratios} are not three shares that add up to 1")
    table = traits(rows, dataset_type, stratify_by=stratify_by, group_by=group_by)
    return divide(table, dataset_type, ratios=ratios, clusters=clusters, seed=seed)


def divide(
    table: pl.DataFrame,
    dataset_type: str,
    *,
    ratios: tuple[float, float, float],
    clusters: pl.DataFrame | None,
    seed: int,
) -> pl.Series:
    """The same as `assign`, by the `traits` of the rows."""
    if dataset_type == "eval_suite":
        return pl.Series("split", ["test"] * table.height, dtype=pl.String)
    if not table.height:
        return pl.Series("split", [], dtype=pl.String)
    unit = units(table, clusters)
    rows = table.select(
        pl.Series("unit", unit), pl.col("stratum").fill_null(NO_CATEGORY), pl.coalesce("group", "row_id").alias("key")
    )
    table = rows.group_by("unit", maintain_order=True).agg(
        # The commonest stratum of a mixed unit; the first of the alphabet when two are as common.
        pl.col("stratum").mode().sort().first(),
        pl.col("key").first(),
        pl.len().alias("size"),
    )
    at = np.array([position(key, seed) for key in table["key"]])
    wanted = dict(zip(SPLITS, ratios, strict=True))
    edge_test, edge_validation = wanted["test"], wanted["test"] + wanted["validation"]
    split = np.where(at < edge_test, 2, np.where(at < edge_validation, 1, 0))
    sizes = table["size"].to_numpy()
    for _, members in table.with_row_index("i").group_by("stratum", maintain_order=True):
        _balance(members["i"].to_numpy(), at, sizes, split, wanted)
    by_unit = pl.DataFrame({"unit": table["unit"], "split": np.array(SPLITS)[split]})
    return pl.DataFrame({"unit": unit}).join(by_unit, on="unit", how="left", maintain_order="left")["split"]


def _balance(
    members: np.ndarray, at: np.ndarray, sizes: np.ndarray, split: np.ndarray, wanted: Mapping[str, float]
) -> None:
    """Move units of one stratum into or out of test and validation until their rows are near what is wanted."""
    total = int(sizes[members].sum())
    for number, name, spare in ((2, "test", 2), (1, "validation", 3)):
        target = total * wanted[name]
        if wanted[name] == 0:
            continue
        slack = max(0.5, TOLERANCE * target)
        lowest = 1 if len(members) >= spare else 0
        # Out: the units that stand last come back to train; in: those of train that stand first.
        while True:
            mine = members[split[members] == number]
            have = int(sizes[mine].sum())
            last = mine[np.argmax(at[mine])] if len(mine) else None
            if last is None or have - target <= slack or len(mine) <= lowest:
                break
            if abs(have - sizes[last] - target) > abs(have - target):
                break
            split[last] = 0
        while True:
            mine = members[split[members] == number]
            train = members[split[members] == 0]
            have = int(sizes[mine].sum())
            short = len(mine) < lowest
            if len(train) < 2 or not (short or target - have > slack):
                break
            order = train[np.argsort(at[train])]
            fitting = order if short else order[sizes[order] <= 2 * (target - have)]
            if short:
                fitting = order[sizes[order] == sizes[order].min()]
            if not len(fitting):
                break
            split[fitting[0]] = number
    if len(members) == 1:
        split[members] = 0


def parts(rows: batches.Batches, split: pl.Series) -> Iterator[dict[str, pl.DataFrame]]:
    """The rows of each split, batch by batch; at least one table of each, which may have no rows."""
    begin = 0
    for batch in batches.regrouped(rows(None)):
        mine = split[begin : begin + batch.height]
        yield {name: batch.filter(mine == name) for name in SPLITS}
        begin += batch.height


def shares(stratum: pl.Series, split: pl.Series, most: int = 30) -> list[dict[str, object]]:
    """Rows of each stratum in each split, the largest strata first."""
    table = pl.DataFrame({"stratum": stratum.fill_null(NO_CATEGORY), "split": split})
    counts = table.group_by("stratum").agg(
        pl.len().alias("rows"), *((pl.col("split") == name).sum().alias(name) for name in SPLITS)
    )
    return counts.sort(["rows", "stratum"], descending=[True, False]).head(most).to_dicts()


def across(values: pl.Series, split: pl.Series) -> list[str]:
    """The values (nulls aside) that occur in more than one split."""
    table = pl.DataFrame({"value": values, "split": split}).drop_nulls("value")
    torn = table.group_by("value").agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
    return torn["value"].cast(pl.String).sort().to_list()


_SHOWN, _CUT = 10, 120


@dataclass(frozen=True)
class Torn:
    """Whether rows that say nearly the same are in one split each, and some pairs that are not."""

    verdict: Verdict
    pairs: list[dict[str, Any]]


def across_splits(
    rows: batches.Batches, clusters: pl.DataFrame, variants: pl.DataFrame, split: pl.Series, dataset_type: str
) -> Torn:
    """Judges the rows of all splits, one split after another, by their near duplicates and variants; `split` is that of
    each row."""
    ids = pl.concat([batch["row_id"] for batch in rows(["row_id"])])
    table = pl.DataFrame({"row_id": ids, "split": split}).join(together(clusters, variants), on="row_id")
    torn = table.filter(pl.col("split").n_unique().over("cluster") > 1)
    if not torn.height:
        return Torn(Verdict(True, "No question is in two splits, nor is one with words added."), [])
    by_variants = pl.col("cluster").str.starts_with(VARIANTS)
    many = torn.select(pl.col("cluster").n_unique(), added=pl.col("cluster").filter(by_variants).n_unique())
    pairs = _pairs(rows, torn, dataset_type)
    one = pairs.row(0, named=True)
    text = (
        f"{many['cluster'][0]:,} clusters of near duplicates are in several splits, {many['added'][0]:,} of them of "
        f"rows that differ by words added: the test would ask what was trained. {one['split']} has {one['text']!r} "
        f"({one['where']}), {one['other_split']} {one['other_text']!r} ({one['other_where']}). "
        "Materialise splits again to divide the version anew."
    )
    return Torn(Verdict(False, text), pairs.to_dicts())


def _pairs(rows: batches.Batches, torn: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """Of some clusters two rows of different splits, each with its split, its place and what it asks: `split`, `where`,
    `text`, and the same of the other."""
    some = torn.sort("cluster", maintain_order=True).unique(["cluster", "split"], keep="first", maintain_order=True)
    wanted = some.filter(pl.int_range(pl.len()).over("cluster") < 2).head(2 * _SHOWN)
    found = [
        batch.filter(pl.col("row_id").is_in(wanted["row_id"].implode()))
        for batch in rows(["row_id", "file", "line", *texts.content_columns(dataset_type)])
    ]
    asked = pl.concat(found).select(
        "row_id",
        where=pl.format("{}:{}", "file", "line"),
        text=pl.coalesce(texts.prompt_of(dataset_type), texts.answer_of(dataset_type)).str.head(_CUT),
    )
    each = wanted.join(asked, on="row_id", maintain_order="left").select("split", "where", "text")
    one, other = each.gather_every(2), each.gather_every(2, 1)
    return pl.concat([one, other.rename(lambda name: f"other_{name}")], how="horizontal")
