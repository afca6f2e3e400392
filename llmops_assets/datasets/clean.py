"""Masks, removes duplicates and filters by score; every dropped row keeps its reason."""

from dataclasses import dataclass

import polars as pl

from llmops_assets.datasets import duplicates, pii, texts

DROPPED = {"row_id": pl.String, "reason": pl.String, "detail": pl.String}


@dataclass(frozen=True)
class Clean:
    """`frame` holds the rows that are kept, masked; `dropped` row_id, reason and detail of the others."""

    frame: pl.DataFrame
    dropped: pl.DataFrame
    masked: dict[str, int]
    masked_rows: int

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        return dict(sorted(self.dropped.group_by("reason").len().iter_rows()))


def clean(
    rows: pl.DataFrame,
    dataset_type: str,
    *,
    clusters: pl.DataFrame,
    scores: pl.DataFrame,
    lowest_score: float,
    personal: pii.Detector,
) -> Clean:
    """What is worth learning from, without personal data.

    Dropped are rows whose score (or the one that came with them) is under `lowest_score`, all but one of each
    duplicate cluster, and rows that became equal by masking. Of a cluster the first row that is good enough stays.
    An evaluation suite is only masked: its rows are what it is. `quality_score` is filled in where a row came
    without one; `row_id` stays that of the row as it was brought.
    """
    judged = rows.select("row_id", "quality_score").join(
        scores.select("row_id", "score"), on="row_id", how="left", maintain_order="left"
    )
    dropped = pl.DataFrame(schema=DROPPED)
    kept = rows.with_columns(quality_score=pl.coalesce(rows["quality_score"], judged["score"]))
    if dataset_type != "eval_suite":
        low = judged.filter(pl.min_horizontal("score", "quality_score") < lowest_score)
        poor = low.select(
            "row_id",
            pl.lit("low score").alias("reason"),
            pl.format("{} < {}", pl.min_horizontal("score", "quality_score"), pl.lit(lowest_score)).alias("detail"),
        )
        left = clusters.join(poor, on="row_id", how="anti")
        # The kept row of a cluster may itself have been too poor: the next one takes its place.
        left = left.with_columns(stays=pl.col("row_id").first().over("cluster"))
        repeats = left.filter(pl.col("row_id") != pl.col("stays")).select(
            "row_id",
            pl.when("exact").then(pl.lit("exact duplicate")).otherwise(pl.lit("near duplicate")).alias("reason"),
            pl.format("of {}", "stays").alias("detail"),
        )
        dropped = pl.concat([dropped, poor, repeats])
        kept = kept.join(dropped, on="row_id", how="anti", maintain_order="left")
    masked = pii.mask_rows(kept, dataset_type, personal)
    frame = masked.frame
    if dataset_type != "eval_suite":
        whole = frame.select("row_id", duplicates.normalised(texts.whole_of(dataset_type)).alias("whole"))
        again = whole.with_columns(stays=pl.col("row_id").first().over("whole")).filter(
            pl.col("row_id") != pl.col("stays")
        )
        alike = again.select(
            "row_id", pl.lit("duplicate after masking").alias("reason"), pl.format("of {}", "stays").alias("detail")
        )
        dropped = pl.concat([dropped, alike])
        frame = frame.join(alike, on="row_id", how="anti", maintain_order="left")
    return Clean(frame=frame, dropped=dropped, masked=masked.counts, masked_rows=len(masked.rows))
