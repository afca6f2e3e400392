"""What was taken for a duplicate, beside the row that stays, what makes the two alike, and what many rows share."""

from typing import Any

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, texts
from llmops_assets.datasets.similarity import differences, sketch
from llmops_assets.datasets.similarity.duplicates import Duplicates
from llmops_assets.datasets.similarity.keys import Near, normalised
from llmops_assets.privacy import pii

SHOWN, OF_EXACT = 12, 3
"""Dropped rows that are shown, and how many of them may be exact copies."""

STRETCHES, LOOKED_AT = 8, 2_000
"""Shared stretches of text that are shown, and the rows among which they are looked for."""

LEAST_SHARED = 3
"""Rows from which text is shown as shared; of many rows, a thousandth of them."""

EXACT = "equal after normalisation"
BARE = "equal but for spaces and punctuation"
NEAR = "alike but for slips"
COPIES = "alike but for facts, which the policy drops"

_CUT = 400
"""Characters of a row that are shown."""


def pairs(
    found: Duplicates, again: batches.Batches, dataset_type: str, how: Near, personal: pii.Detector
) -> list[dict[str, Any]]:
    """Rows that are dropped as duplicates (nearly equal ones first), each with the row that stays.

    Of each: `dropped` and `kept` (row_id, where, text), `rule`, `similarity` (Jaccard of the whole texts), `shared`
    (how much of it stands in text that many rows hold) and `differences`; texts are masked.
    """
    gone = found.clusters.filter(~pl.col("kept"))
    some = pl.concat([gone.filter(~pl.col("exact")).head(SHOWN), gone.filter("exact").head(OF_EXACT)]).head(SHOWN)
    if not some.height:
        return []
    ids = pl.concat([some["row_id"], some["cluster"]]).unique(maintain_order=True)
    rows = _rows(again, ids, dataset_type)
    text = normalised(rows, dataset_type, cased=True)
    number = {row_id: at for at, row_id in enumerate(rows["row_id"])}
    wanted = np.array([(number[kept], number[gone]) for gone, kept in some.select("row_id", "cluster").iter_rows()])
    whole = sketch.buffers(text["whole"])
    similarity = sketch.jaccard(whole, wanted.astype(np.int32), how.shingle)
    regions = differences.regions(whole, wanted, found.counts)
    shared = _shared_share(found, text["whole"])
    shown = pii.mask_texts(rows.select(texts.whole_of(dataset_type)).to_series(), personal.shown).str.head(_CUT)
    lines = []
    for at, (exact, (kept, gone)) in enumerate(zip(some["exact"], wanted.tolist(), strict=True)):
        mine = regions.filter(pl.col("pair") == at)
        apart = mine.filter(pl.col("sort").is_not_null() & (pl.col("sort") != "slip"))
        rule = EXACT if exact else NEAR if not apart.height or how.heeds_facts(dataset_type) else COPIES
        if not exact and mine["sort"].null_count() == mine.height:
            rule = BARE
        lines.append(
            {
                "dropped": _shown(rows, gone, shown[gone]),
                "kept": _shown(rows, kept, shown[kept]),
                "rule": rule,
                "similarity": round(float(similarity[at]), 3),
                "shared": round(float(shared[gone]), 3),
                "differences": _masked([f"{one} → {other}" for one, other in mine.select(
                    pl.col("one").str.strip_chars(), pl.col("other").str.strip_chars()).head(4).iter_rows()], personal),
            }
        )  # fmt: skip
    return lines


def shared_text(
    found: Duplicates, again: batches.Batches, dataset_type: str, personal: pii.Detector
) -> list[dict[str, Any]]:
    """The stretches of text that most rows share: `text` (masked), `rows` that hold it, and the `share` of all rows.

    Looked for in the first rows that are no duplicates; the rows of a stretch are counted over all.
    """
    if found.counts is None or found.counts.rows < LEAST_SHARED:
        return []
    least = max(LEAST_SHARED, found.counts.rows // 1000)
    stretches, looked = [], 0
    for batch in again(["row_id", *texts.content_columns(dataset_type)]):
        others = batch.filter(~pl.col("row_id").is_in(found.clusters["row_id"].implode()))
        stretches.append(found.counts.stretches(normalised(others, dataset_type, cased=True)["whole"], least))
        looked += others.height
        if looked >= LOOKED_AT:
            break
    table = pl.concat(stretches).filter(pl.col("shared").str.len_chars() >= 24)
    table = table.group_by("shared").agg(pl.col("rows").max(), pl.len().alias("met")).filter(pl.col("met") > 1)
    table = table.sort(pl.col("rows") * pl.col("shared").str.len_chars(), "shared", descending=[True, False])
    table = table.head(STRETCHES)
    masked = pii.mask_texts(table["shared"], personal.shown).str.head(_CUT)
    return [
        {"text": text, "rows": rows, "share": round(min(rows / found.counts.rows, 1.0), 4)}
        for text, rows in zip(masked, table["rows"], strict=True)
    ]


def as_lines(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for a table of a page: a line a dropped row."""
    return [
        {
            "dropped": f"{line['dropped']['where']} {line['dropped']['text'][:160]}",
            "like": f"{line['kept']['where']} {line['kept']['text'][:160]}",
            "rule": line["rule"],
            "similarity": line["similarity"],
            "shared text": f"{line['shared']:.0%}",
            "what differs": "; ".join(line["differences"]) or "nothing",
        }
        for line in shown
    ]


def _rows(again: batches.Batches, ids: pl.Series, dataset_type: str) -> pl.DataFrame:
    found, missing = [], len(ids)
    for batch in again(["row_id", "file", "line", *texts.content_columns(dataset_type)]):
        found.append(batch.filter(pl.col("row_id").is_in(ids.implode())))
        missing -= found[-1].height
        if not missing:
            break
    return pl.concat(found)


def _shown(rows: pl.DataFrame, at: int, text: str) -> dict[str, Any]:
    return {"row_id": rows["row_id"][at], "where": f"{rows['file'][at]}:{rows['line'][at]}", "text": text}


def _shared_share(found: Duplicates, whole: pl.Series) -> np.ndarray:
    if found.counts is None:
        return np.zeros(len(whole))
    least = max(LEAST_SHARED, found.counts.rows // 1000)
    held = found.counts.stretches(whole, least).group_by("text").agg(pl.col("shared").str.len_bytes().sum())
    result = np.zeros(len(whole))
    result[held["text"].to_numpy()] = held["shared"].to_numpy()
    return np.minimum(result / np.maximum(whole.str.len_bytes().to_numpy(), 1), 1.0)


def _masked(values: list[str], personal: pii.Detector) -> list[str]:
    return pii.mask_texts(pl.Series(values, dtype=pl.String), personal.shown).str.head(80).to_list()
