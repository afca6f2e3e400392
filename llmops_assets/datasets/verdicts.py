"""What the checks of datasets say of counts: rows that came in or were refused, and how splits share them out."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from llmops_assets.datasets import split
from llmops_assets.datasets.reading.quarantine import in_words
from llmops_assets.records.datasets import DatasetRecord
from llmops_assets.verdict import Verdict

Rows = list[dict[str, Any]]


def rows_present(record: DatasetRecord, most: int, reasons: Sequence[Mapping[str, Any]]) -> Verdict:
    """Whether a version has rows, and no more than `most`; `reasons` are the commonest of those that were refused."""
    figures: dict[str, float | int | str] = {"rows": record.rows}
    if record.rows > most:
        return Verdict(False, f"{record.rows:,} rows are more than the {most:,} allowed: split the version", figures)
    if record.rows:
        return Verdict(True, f"{record.rows:,} rows", figures)
    why = f"No row could be read: {in_words(reasons)}. " if reasons else "The files hold no row. "
    return Verdict(
        False,
        f"{why}Correct the files or the mapping and register them as a new version. Every reason: "
        f"`llmops dataset quarantine {record.dataset}`.",
        figures,
    )


def quarantine_share(record: DatasetRecord, limit: float) -> Verdict:
    """Whether no more than the share `limit` of the rows was refused."""
    total = record.rows + record.quarantined
    share = record.quarantined / total if total else 1.0
    advice = f" Every reason: `llmops dataset quarantine {record.dataset}`." if record.quarantined else ""
    if share > limit:
        advice = f" Correct the files and register them as a new version.{advice}"
    return Verdict(
        share <= limit,
        f"{record.quarantined:,} of {total:,} rows were refused ({share:.1%}, at most {limit:.1%}).{advice}",
        {"share": round(share, 6)},
    )


def no_group_across_splits(groups: pl.Series, names: pl.Series, group_by: str) -> tuple[Verdict, Rows]:
    """Whether no group is in two splits (`names`, the split of each row), and the groups that are."""
    torn, missing = split.across(groups, names), groups.null_count()
    if missing == len(groups) and len(groups):
        return Verdict(
            False, f"No row has a metadata field {group_by!r}: correct split.group_by and register again."
        ), []
    text = f"{len(torn):,} groups of {group_by} are in several splits" if torn else f"No {group_by} is in two splits."
    return Verdict(not torn, text, {"rows_without_group": missing}), [{"group": value} for value in torn[:10]]


def split_sizes(rows: Mapping[str, int], wanted: Sequence[float]) -> tuple[Verdict, Rows]:
    """Whether every split that is wanted has rows, near its share of them, and the sizes beside those wanted."""
    total = sum(rows.values())
    lines = [
        {"split": name, "rows": rows[name], "share": f"{rows[name] / max(total, 1):.3f}", "wanted": ratio}
        for name, ratio in zip(split.SPLITS, wanted, strict=True)
    ]
    empty = [line["split"] for line in lines if line["wanted"] > 0 and line["rows"] == 0]
    # Groups that must stay together can be large: a share may be off by a third, or by the odd row of a small set.
    off = [
        line["split"]
        for line in lines
        if abs(line["rows"] - line["wanted"] * total) > max(0.35 * line["wanted"] * total, 3, 0.05 * total)
    ]
    bad = empty + [name for name in off if name not in empty]
    text = f"{', '.join(bad)}: too few or too many rows. Add rows, or make the groups of split.group_by smaller."
    return Verdict(not bad, text if bad else "As wanted."), lines


def categories_are_trained(by_split: Mapping[str, pl.Series]) -> Verdict:
    """Whether every category of the test and validation rows is trained; `by_split` has that of each row."""
    found = {name: set(values.fill_null(split.NO_CATEGORY).unique()) for name, values in by_split.items()}
    missing = sorted((found["test"] | found["validation"]) - found["train"])
    text = f"{len(found['train']):,} categories are trained."
    if missing:
        text = f"Asked but never trained: {', '.join(missing[:10])}"
    return Verdict(not missing, text, {"untested": len(found["train"] - found["test"])})
