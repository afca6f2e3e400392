"""What the checks of datasets say of single rows: broken rules, personal data left, lost rows, prompts seen before."""

from collections.abc import Iterable, Mapping
from itertools import islice

import polars as pl

from llmops_assets.datasets import schema, split
from llmops_assets.datasets.batches import Batches
from llmops_assets.datasets.verdicts import Rows
from llmops_assets.verdict import Verdict

SHOWN = 10
"""Rows that a verdict gives as examples."""

Judged = tuple[Verdict, Rows]
"""A verdict, and rows that made it."""


def schema_holds(batches: Iterable[pl.DataFrame], row_ids: pl.Series, dataset_type: str) -> Judged:
    """Whether all rows keep the rules of their type, and each has a `row_id` of its own."""
    faults, examples = 0, Rows()
    try:
        for batch in batches:
            found = schema.faults(batch, dataset_type)
            faults += len(found)
            examples += [
                {"row": batch["row_id"][i], "rule": rule.name, "reason": rule.reason}
                for i, rule in islice(found.items(), SHOWN - len(examples))
            ]
    except ValueError as error:
        return Verdict(False, str(error)), []
    if repeated := len(row_ids) - row_ids.n_unique():
        return Verdict(False, f"{repeated:,} rows have the row_id of another row: ingest the version again"), []
    if faults:
        reason = f"{faults:,} rows break a rule of {dataset_type}: ingest the version again"
        return Verdict(False, reason), examples
    return Verdict(True, f"All rows are {dataset_type}."), examples


def control_tokens(rows_by_token: Mapping[str, int], found: pl.DataFrame, dropped: bool) -> Judged:
    """That rows hold control tokens of models, by token and as findings, and what becomes of them."""
    named = ", ".join(f"{token} in {rows:,}" for token, rows in islice(rows_by_token.items(), SHOWN))
    if dropped:
        fate = "clean_dataset drops them (datasets.control_tokens)."
    else:
        fate = "They are trained, asked and served as text, and end no turn. Are they left over from rendering?"
    shown = found.select("row_id", "type", "file", "line").head(SHOWN).to_dicts()
    return Verdict(False, f"{found['row_id'].n_unique():,} rows hold control tokens: {named}. {fate}"), shown


def no_personal_data(searched: Iterable[tuple[pl.DataFrame, pl.DataFrame]]) -> Judged:
    """Whether nothing was found in any batch of rows, each with its spans."""
    left, examples = 0, Rows()
    for batch, spans in searched:
        left += spans.height
        examples += [
            {"row": batch["row_id"][row], "column": column, "type": type_}
            for row, column, type_ in spans.select("row", "column", "type").head(SHOWN - len(examples)).iter_rows()
        ]
    reason = f"{left:,} spans of personal data are left: they are not to be trained on" if left else "None left."
    return Verdict(left == 0, reason, {"spans": left}), examples


def accounted_for(before: pl.Series, after: pl.Series) -> Verdict:
    """Whether the row_ids that came in are those that were kept or dropped, each once."""
    lost = len(before) - before.is_in(after.implode()).sum() + len(after) - after.is_in(before.implode()).sum()
    lost += len(after) - after.n_unique()
    return Verdict(lost == 0, f"{lost:,} rows are lost or counted twice." if lost else "All rows are accounted for.")


def held_out_prompts_are_new(rows: Batches, names: pl.Series, dataset_type: str, most: float) -> Judged:
    """Whether no prompt is in several splits (`names`, by row), and no more than the share `most` of the held-out rows
    stand as a turn in longer conversations of the training rows."""
    torn = split.across(split.asked(rows, dataset_type), names)
    leaked, held_out = split.leaked_turns(rows, names, dataset_type), int((names != "train").sum())
    figures = {"prompts": len(torn)}
    if len(leaked) > most * held_out:
        reason = (
            f"{len(leaked):,} of {held_out:,} held-out rows stand as a turn in longer conversations of the training "
            "rows, question and answer: give them a field in common with those and name it in split.group_by, or leave "
            "one of the two out"
        )
        return Verdict(False, reason, figures), [{"row": row} for row in leaked[:SHOWN]]
    reason = f"{len(torn):,} prompts are in several splits" if torn else "All held-out prompts are new to training."
    return Verdict(not torn, reason, figures), []
