"""What is found in single rows of a dataset version, as a table: personal data, toxicity, conflicts, failures."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from llmops_assets.privacy import masking, pii

FINDINGS = {
    "row_id": pl.String,
    "kind": pl.String,
    "type": pl.String,
    "column": pl.String,
    "sample": pl.String,
    "file": pl.String,
    "line": pl.Int64,
}
UNEXAMINED = "unexamined"

SAMPLE = 160
"""Characters of a (masked) sample."""

Found = tuple[int, str, str, str, str]
"""Row number in the batch, kind, type, column, sample."""


def as_findings(found: list[Found], where: pl.DataFrame) -> pl.DataFrame:
    """The table of findings (`FINDINGS`) of a batch; `where` has row_id, file and line of its rows."""
    table = pl.DataFrame(
        found, schema={"row": pl.Int64, **{n: FINDINGS[n] for n in ("kind", "type", "column", "sample")}}, orient="row"
    )
    return pl.concat([table.drop("row"), where[table["row"].to_list()]], how="horizontal").select(list(FINDINGS))


def as_unexamined(failed: pl.DataFrame) -> pl.DataFrame:
    """Rows that a detector failed on (row_id, reason, file, line) as findings."""
    return failed.select(
        "row_id",
        pl.lit(UNEXAMINED).alias("kind"),
        pl.col("reason").str.extract(r"^([^:]*)").alias("type"),
        pl.lit("").alias("column"),
        pl.col("reason").alias("sample"),
        "file",
        "line",
    ).select(list(FINDINGS))


def unexamined(findings: pl.DataFrame) -> pl.DataFrame:
    """The rows among the findings that could not be examined, with the reason (`batches.UNEXAMINED`)."""
    return findings.filter(pl.col("kind") == UNEXAMINED).select("row_id", pl.col("sample").alias("reason"))


def of_personal_data(spans: pl.DataFrame, how: pii.Detector) -> Iterable[Found]:
    """One line for each type in each text, with the whole text masked and cut: a sample shows nobody's data."""
    for (row, column, _), part in spans.group_by("row", "column", "part", maintain_order=True):
        text = part["text"][0]
        places = [masking.Span(s, e, t, p) for s, e, t, p in part.select("start", "end", "type", "score").iter_rows()]
        begin = max(0, places[0].start - 60)
        # Only what is near the first place is shown, so only that is masked: a long text would be copied for nothing.
        near = [span for span in places if span.start < begin + 4 * SAMPLE]
        sample = masking.replace(text, near, how.placeholders)[begin : begin + SAMPLE]
        for type_ in part["type"].unique(maintain_order=True):
            yield row, "pii", type_, column, sample


def of_toxicity(whole: pl.Series, groups: pl.Series, personal: pii.Detector) -> Iterable[Found]:
    """One line for each group that a text is toxic towards, with the beginning of the masked text."""
    flagged = (groups.list.len() > 0).arg_true()
    samples = pii.mask_texts(whole.gather(flagged), personal.shown).str.head(SAMPLE)
    for number, sample in zip(flagged, samples, strict=True):
        for group in groups[number]:
            yield number, "toxic", group, "", sample


def of_conflicts(keys: pl.DataFrame, where: pl.DataFrame) -> pl.DataFrame:
    """Rows whose prompt is answered differently by another row (after normalisation), as findings."""
    numbers = (
        keys.lazy()
        .select("prompt", "answer", pl.int_range(pl.len(), dtype=pl.Int64).alias("row"))
        .drop_nulls("prompt")
        .filter(pl.col("answer").n_unique().over("prompt") > 1)
        .select("row")
        .collect()["row"]
    )
    found = [
        (row, "conflict", "conflicting_answers", "", "the same prompt has another answer elsewhere") for row in numbers
    ]
    return as_findings(found, where)


def samples(findings: pl.DataFrame, each: int = 2) -> list[dict[str, Any]]:
    """A few findings of each kind and type of personal data and toxicity, with file and line."""
    personal = findings.filter(pl.col("kind").is_in(["pii", "toxic"]))
    table = personal.group_by("kind", "type", maintain_order=True).head(each).sort("kind", "type", maintain_order=True)
    where = pl.format("{}:{}", "file", "line").alias("where")
    return table.select("kind", "type", "column", where, "sample", "row_id").to_dicts()
