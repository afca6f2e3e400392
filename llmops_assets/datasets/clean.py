"""Masks, removes duplicates and filters by score, batch by batch; every row keeps what was done to it and why."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from llmops_assets.datasets import batches
from llmops_assets.datasets.quality import personal_data
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.privacy import pii
from llmops_assets.records.datasets import CleanRecord
from llmops_assets.verdict import Verdict

DROPPED = {"row_id": pl.String, "reason": pl.String, "detail": pl.String}
CHANGES = "changes"
"""Column of clean rows: what was masked in the row (``PHONE_NUMBER 2, PERSON 1``), empty for an untouched one."""


@dataclass
class Cleaning:
    """One cleaning of a table. The figures are complete once `frames` has been gone through.

    `dropped` holds row_id, reason and detail of the rows that are left out, `masked` spans by type.
    """

    rows: batches.Batches
    dataset_type: str
    decided: pl.DataFrame
    scores: pl.DataFrame
    personal: pii.Detector
    clusters: pl.DataFrame
    spans: pl.DataFrame | None = None
    near: duplicates.Near | None = None
    kept: int = 0
    masked: Counter[str] = field(default_factory=Counter)
    masked_rows: int = 0
    _alike: list[pl.DataFrame] = field(default_factory=list)
    _keys: duplicates.Gathered = field(default_factory=duplicates.Gathered)
    _ids: list[pl.Series] = field(default_factory=list)

    @property
    def dropped(self) -> pl.DataFrame:
        return pl.concat([self.decided, *self._alike])

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        return dict(sorted(self.dropped.group_by("reason").len().iter_rows()))

    @property
    def _changes_texts(self) -> bool:
        """Whether masking changes a text of a row that stays."""
        return self.spans is None or self.spans.join(self.decided, on="row_id", how="anti").height > 0

    def _batches(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame | None]]:
        if self.spans is None:
            return ((batch, None) for batch in batches.regrouped(self.rows(None)))
        return personal_data.with_spans(self.rows, self.spans)

    def clusters_left(self, again: batches.Batches) -> pl.DataFrame:
        """The clusters of near duplicates among the rows that `frames` gave; `again` gives those once more.

        Where no text was changed, two rows that stay are as alike as they were when they were brought: their clusters
        are the recorded ones without the rows that went. Masking makes rows more alike that differed in a name or a
        number, with others that were not masked too, and a placeholder may part two that were just alike enough. So
        where it changed any text the clusters are those of the texts as they are now; their sketches were taken in the
        pass that masks.
        """
        if self.near is None or not self._keys:
            return duplicates.restricted(self.clusters, pl.concat(self._ids))
        return duplicates.clusters(self._keys, again, self.dataset_type, self.near).clusters

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows that are kept, masked, in order."""
        # Rows of pairs may have a score of their own, which is learned: that of the report goes by another name.
        scores = self.scores.select("row_id", pl.col("score").alias("found_score"))
        met = FirstMet()

        def work(
            given: tuple[pl.DataFrame, pl.DataFrame | None],
        ) -> tuple[tuple[personal_data.Masked, duplicates.Keys], pl.DataFrame]:
            batch, found = given
            left = batch.join(self.decided, on="row_id", how="anti", maintain_order="left")
            left = left.join(scores, on="row_id", how="left", maintain_order="left")
            left = left.with_columns(pl.coalesce("quality_score", "found_score").alias("quality_score")).drop(
                "found_score"
            )

            def mask(rows: pl.DataFrame) -> tuple[personal_data.Masked, duplicates.Keys]:
                spans = None if found is None else personal_data.in_rows(found, rows)
                result = personal_data.mask_rows(rows, self.dataset_type, self.personal, spans)
                return result, duplicates.keys(result.frame, self.dataset_type, how)

            return batches.isolated(mask, left)

        # An evaluation suite loses no row: with `drop` it is masked all the same.
        drops = self.personal.mode == "drop" and self.dataset_type != "eval_suite"
        how = self.near if self._changes_texts and not drops else None
        workers = 1 if self.personal.names is not None else None
        for (result, keys), failed in batches.mapped(work, self._batches(), workers):
            self._alike.append(_dropped_unexamined(failed))
            frame = result.frame.with_columns(_changes(result).alias(CHANGES))
            if self.dataset_type != "eval_suite":
                given = keys.table.select("row_id", "whole", "whole2")
                if "label" in frame.columns:
                    # An answer that was found bad is no repeat of the same one that was found good.
                    label = frame["label"].fill_null(False).cast(pl.UInt64)
                    given = given.with_columns(pl.col("whole") ^ label)
                alike = met.repeats(given)
                if alike.height:
                    self._alike.append(alike)
                    frame = frame.join(alike, on="row_id", how="anti", maintain_order="left")
            if drops and result.rows:
                touched = frame.filter(pl.col(CHANGES) != "")
                self._alike.append(
                    touched.select("row_id", pl.lit("personal data").alias("reason"), pl.col(CHANGES).alias("detail"))
                )
                frame = frame.filter(pl.col(CHANGES) == "")
            if how is not None:
                self._keys.add(duplicates.some_keys(keys, keys.table["row_id"].is_in(frame["row_id"].implode())))
            self._ids.append(frame["row_id"])
            self.kept += frame.height
            self.masked.update(result.counts)
            self.masked_rows += len(result.rows)
            yield frame


class FirstMet:
    """Which row every text was first met in, by a 128-bit hash of the text: 40 bytes a row."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)
        self._others = np.empty(0, np.uint64)
        self._ids = np.empty(0, "S64")

    def repeats(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Of the next rows (row_id, whole, whole2) those whose text was met before, with the row that it was met in
        (`DROPPED`)."""
        first = rows.unique(["whole", "whole2"], keep="first", maintain_order=True)
        known = self._known(first)
        stays = first.with_columns(pl.coalesce(known, "row_id").alias("stays")).select("whole", "whole2", "stays")
        new = first.filter(known.is_null())
        self._add(new)
        judged = rows.join(stays, on=["whole", "whole2"], how="left", maintain_order="left")
        return judged.filter(pl.col("stays") != pl.col("row_id")).select(
            "row_id", pl.lit("duplicate after masking").alias("reason"), pl.format("of {}", "stays").alias("detail")
        )

    def _known(self, rows: pl.DataFrame) -> pl.Series:
        """The rows that these texts were met in; null for new ones."""
        found: list[str | None] = [None] * rows.height
        hashes, others = rows["whole"].to_numpy(), rows["whole2"].to_numpy()
        begins = np.searchsorted(self._hashes, hashes, "left")
        ends = np.searchsorted(self._hashes, hashes, "right")
        for number in np.flatnonzero(begins < ends):
            for at in range(begins[number], ends[number]):
                if self._others[at] == others[number]:
                    found[number] = self._ids[at].decode()
        return pl.Series(found, dtype=pl.String)

    def _add(self, rows: pl.DataFrame) -> None:
        order = rows["whole"].arg_sort().to_numpy()
        hashes = rows["whole"].to_numpy()[order]
        ids = np.array([identity.encode() for identity in rows["row_id"].to_list()], dtype=bytes)
        places = np.searchsorted(self._hashes, hashes)
        self._hashes = np.insert(self._hashes, places, hashes)
        self._others = np.insert(self._others, places, rows["whole2"].to_numpy()[order])
        width = f"S{max(self._ids.dtype.itemsize if len(self._ids) else 1, ids.dtype.itemsize)}"
        self._ids = np.insert(self._ids.astype(width, copy=False), places, ids[order].astype(width, copy=False))


def _dropped_unexamined(failed: pl.DataFrame) -> pl.DataFrame:
    """Rows that no detector has judged are not learned from: who is in them is not known."""
    return failed.select("row_id", pl.lit("could not be examined").alias("reason"), pl.col("reason").alias("detail"))


def _changes(result: personal_data.Masked) -> pl.Series:
    """For each row the types that were masked in it, and how often."""
    by_row = (
        result.by_row.group_by("row", "type")
        .len()
        .sort("row", "type")
        .group_by("row", maintain_order=True)
        .agg(pl.format("{} {}", "type", "len").str.join(", ").alias(CHANGES))
    )
    rows = pl.DataFrame({"row": pl.int_range(result.frame.height, dtype=pl.UInt32, eager=True)})
    joined = rows.join(by_row.cast({"row": pl.UInt32}), on="row", how="left", maintain_order="left")
    return joined[CHANGES].fill_null("")


def cleaning(
    rows: pl.DataFrame | batches.Batches,
    dataset_type: str,
    *,
    clusters: pl.DataFrame,
    scores: pl.DataFrame,
    lowest_score: float,
    personal: pii.Detector,
    spans: pl.DataFrame | None = None,
    near: duplicates.Near | None = None,
    unexamined: pl.DataFrame | None = None,
    unwanted: pl.DataFrame | None = None,
) -> Cleaning:
    """What is worth learning from, without personal data.

    Dropped are rows whose score (or the one that came with them) is under `lowest_score`, all but one of each
    duplicate cluster, and rows that became equal by masking. Of a cluster the first row that is good enough stays.
    An evaluation suite is only masked: its rows are what it is. `quality_score` is filled in where a row came
    without one; `row_id`, `file` and `line` stay those of the row as it was brought, and `changes` says what was
    masked in it.

    `unwanted` (row_id, reason, detail) are rows that the policy drops, but of an evaluation suite.
    Rows that a detector failed on (`unexamined`, from the report) are dropped, of an evaluation suite too.

    `spans` are those of the report, of the same detector; without, personal data is looked for anew. With `near`,
    `clusters_left` can be asked for.
    """
    again = batches.of(rows)
    decided = pl.DataFrame(schema=DROPPED)
    if dataset_type != "eval_suite":
        # Of answers that were found bad the bad ones are wanted, too, and beside the same one that was found good.
        labelled = ["label"] if dataset_type == "kto" else []
        brought = pl.concat(list(again(["row_id", "quality_score", *labelled])))
        if unwanted is not None and unwanted.height:
            # A row like one of them stays in its place.
            clusters = clusters.join(unwanted, on="row_id", how="anti", maintain_order="left")
            decided = decide(brought.join(unwanted, on="row_id", how="anti"), clusters, scores, lowest_score)
            decided = pl.concat([unwanted.select(list(DROPPED)), decided])
        else:
            decided = decide(brought, clusters, scores, lowest_score)
    if unexamined is not None and unexamined.height:
        others = decided.join(unexamined, on="row_id", how="anti", maintain_order="left")
        decided = pl.concat([_dropped_unexamined(unexamined), others])
    return Cleaning(again, dataset_type, decided, scores, personal, clusters, spans, near)


NEAR_DUPLICATE = "near duplicate"


def duplicate_share(record: CleanRecord, limit: float) -> Verdict:
    """No more than the share `limit` of the rows went as near duplicates; exact copies are not counted."""
    total = record.rows + sum(record.dropped_by_reason.values())
    near = record.dropped_by_reason.get(NEAR_DUPLICATE, 0)
    share = near / max(total, 1)
    text = f"{near:,} of {total:,} rows were dropped as near duplicates ({share:.1%}, at most {limit:.1%})."
    if share > limit:
        text += (
            " Look at the examples. Keep one of each in the files and register them as a new version; or, if so many "
            "copies are no mistake, raise datasets.max_duplicate_share in the policy."
        )
    return Verdict(share <= limit, text, {"share": round(share, 6)})


def decide(brought: pl.DataFrame, clusters: pl.DataFrame, scores: pl.DataFrame, lowest_score: float) -> pl.DataFrame:
    """The rows that are dropped by score or as duplicates, before anything is masked; `brought` has row_id and
    quality_score in the order of the rows, and of rated answers their label: bad ones are dropped for no score, and are
    no duplicates of good ones."""
    judged = brought.join(scores.select("row_id", "score"), on="row_id", how="left", maintain_order="left")
    low = judged.filter(pl.min_horizontal("score", "quality_score") < lowest_score)
    alike = ["cluster"]
    if "label" in brought.columns:
        low, alike = low.filter("label"), ["cluster", "label"]
        clusters = clusters.join(brought.select("row_id", "label"), on="row_id", how="left", maintain_order="left")
    poor = low.select(
        "row_id",
        pl.lit("low score").alias("reason"),
        pl.format("{} < {}", pl.min_horizontal("score", "quality_score"), pl.lit(lowest_score)).alias("detail"),
    )
    left = clusters.join(poor, on="row_id", how="anti", maintain_order="left")
    # The kept row of a cluster may itself have been too poor: the next one takes its place.
    left = left.with_columns(stays=pl.col("row_id").first().over(alike))
    repeats = left.filter(pl.col("row_id") != pl.col("stays")).select(
        "row_id",
        pl.when("exact").then(pl.lit("exact duplicate")).otherwise(pl.lit(NEAR_DUPLICATE)).alias("reason"),
        pl.format("of {}", "stays").alias("detail"),
    )
    return pl.concat([poor, repeats])
