"""What of a version was refused, and why: the quarantines of its steps, whole or by reason."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from llmops_assets.datasets import schema
from llmops_assets.datasets.quality.findings import UNEXAMINED
from llmops_assets.records.datasets import DatasetRecord, QualityRecord
from llmops_assets.records.documents import QuestionAnswersRecord
from resources.dataset_store import DatasetStore
from resources.records import Records

SHOWN = ["file", "line", "field", "reason"]


def refused(store: DatasetStore, records: Records, key: str) -> pl.DataFrame:
    """Everything that was refused of a dataset version: step, file, line, field and reason, in that order of steps.

    Documents, passages and rows of a model come first, then the rows that could not be ingested, and those that a
    detector failed on. For a row about a
    document `line` is the number of its passage, 0 for the whole document.
    """
    found = [pl.DataFrame(schema={"step": pl.String, **{name: schema.QUARANTINE[name] for name in SHOWN}})]
    for kind in (QuestionAnswersRecord, DatasetRecord):
        record = records.find(kind, key)
        if record is not None and record.quarantine is not None:
            lines = store.read(record.quarantine, SHOWN)
            found.append(lines.select(pl.lit(kind.asset).alias("step"), *SHOWN))
    report = records.find(QualityRecord, key)
    if report is not None and report.unexamined_rows:
        failed = store.read(report.findings).filter(pl.col("kind") == UNEXAMINED)
        reason = pl.col("sample").alias("reason")
        found.append(
            failed.select(pl.lit(report.asset).alias("step"), "file", "line", pl.lit("").alias("field"), reason)
        )
    return pl.concat(found)


def common_reasons(quarantine: pl.DataFrame, most: int = 5) -> list[dict[str, Any]]:
    """The commonest reasons: field, reason, count, and `first`, the file (and line) where it was met first."""
    first = pl.when(pl.col("line") > 0).then(pl.format("{}:{}", "file", "line")).otherwise("file")
    table = quarantine.group_by("field", "reason", maintain_order=True).agg(
        pl.len().alias("count"), first.first().alias("first")
    )
    return table.sort("count", descending=True, maintain_order=True).head(most).to_dicts()


def in_words(reasons: Sequence[Mapping[str, Any]], most: int = 3) -> str:
    """The first reasons in one line: where, why, and how many more have the same."""
    parts = [
        f"{one['first']}: {one['reason']}" + (f" ({one['count'] - 1:,} more)" if one["count"] > 1 else "")
        for one in reasons[:most]
    ]
    return "; ".join(parts)
