"""Judges whether rows ask enough: answers that differ, and a test row for every category."""

from collections.abc import Iterable

import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.datasets.split import NO_CATEGORY
from llmops_assets.verdict import Verdict

FEWEST_ROWS = 20
"""Rows below which one answer in all of them may be chance."""
SHOWN = 60
"""Characters of an answer that a sentence quotes."""


def answer_counts(batches: Iterable[pl.DataFrame], dataset_type: str) -> pl.DataFrame:
    """How many rows have each answer, the commonest first: `answer`, trimmed, its first `SHOWN` characters and one
    more, and `len`. Told apart are whole answers, by their hash."""
    answer, shown = pl.col("answer"), pl.col("answer").str.slice(0, SHOWN + 1)
    counted = [
        batch.select(texts.answer_of(dataset_type).str.strip_chars().alias("answer"))
        .group_by(answer.hash(1).alias("hash"))
        .agg(shown.first(), pl.len())
        for batch in batches
    ]
    if not counted:
        return pl.DataFrame(schema={"answer": pl.String, "len": pl.UInt32})
    whole = pl.concat(counted).group_by("hash").agg(answer.first(), pl.col("len").sum())
    return whole.select("answer", "len").sort(["len", "answer"], descending=[True, False])


def answers_vary(counts: pl.DataFrame, allowed: float) -> Verdict:
    """Whether no more than the share `allowed` of the rows has one and the same answer, by `answer_counts`.

    A model that is trained on one answer gives it to everything, and a test split of the same rows finds it perfect.
    """
    rows = int(counts["len"].sum())
    if rows < FEWEST_ROWS:
        return Verdict(True, f"{rows} rows are too few to tell.")
    most, answer = int(counts["len"][0]), counts["answer"][0]
    share = most / rows
    quoted = answer if len(answer) <= SHOWN else f"{answer[:SHOWN]}…"
    text = f"{most:,} of {rows:,} rows ({share:.1%}; {allowed:.0%} are allowed) have the same answer: {quoted!r}"
    figures = {"answers": counts.height, "rows_of_the_commonest": most}
    if share <= allowed:
        return Verdict(True, f"{counts.height:,} different answers. {text}.", figures)
    return Verdict(
        False,
        f"{text}. A model would learn to say it to everything, and be right in the test. Look at the mapping of the "
        "columns, add rows with other answers, or allow more in the policy (datasets.max_same_answer_share)",
        figures,
    )


def categories_are_tested(field: str, by_split: dict[str, pl.Series], allowed: float) -> Verdict:
    """Whether every category has a test row: `by_split` holds the categories of each split's rows, null where none is.

    `allowed` is the share of the rows that may belong to categories without one. A `field` that no row has is refused,
    unless it is the one that is taken where a registration names none.
    """
    given = pl.concat([values.cast(pl.String).str.strip_chars() for values in by_split.values()])
    without = int((given.is_null() | (given == "")).sum())
    if without == len(given):
        if field == "category" or not len(given):
            return Verdict(True, "No row has a category.")
        return Verdict(False, f"No row has a metadata field {field!r}: correct split.stratify_by and register again.")
    rows = pl.DataFrame({"category": given.fill_null(NO_CATEGORY)}).group_by("category").len()
    tested = set(by_split["test"].cast(pl.String).str.strip_chars().fill_null(NO_CATEGORY))
    missing = rows.filter(~pl.col("category").is_in(tested)).sort("len", descending=True)
    share = int(missing["len"].sum()) / len(given)
    figures = {"untested": missing.height, "rows_without_category": without}
    names = ", ".join(f"{name} ({count} rows)" for name, count in missing.head(10).iter_rows())
    none = f" {without:,} rows have no {field}." if without else ""
    if not missing.height:
        return Verdict(True, f"All {rows.height:,} values of {field} have test rows.{none}", figures)
    text = f"Trained, but never asked in the test: {names}; {share:.1%} of the rows, {allowed:.1%} are allowed."
    # One row of a kind is no category, and a handful of rows no version to judge by.
    if len(given) < FEWEST_ROWS or share <= max(allowed, 1 / len(given)):
        return Verdict(True, f"{text}{none}", figures)
    return Verdict(
        False,
        f"{text}{none} Nothing would tell how good the model is at them: add rows that differ, merge them into another "
        "category, or allow more in the policy (datasets.max_untested_share).",
        figures,
    )
