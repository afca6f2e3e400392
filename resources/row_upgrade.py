"""Gives rows that an earlier version stored the columns and message fields that today's have, empty."""

import polars as pl

from llmops_assets.records.conversation import FIELDS, TOOLS

MESSAGE = pl.Struct({name: pl.Int8 if name == "weight" else pl.String for name in FIELDS})
"""Polars type of a message."""

_BEFORE = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
_LAST_OF_CHATS = ("messages", "rejected")
"""The content column of a chat type behind which `tools` stands."""


def upgraded(frame: pl.DataFrame, columns: list[str] | None = None) -> pl.DataFrame:
    """A stored table as it would be stored today; with `columns`, those alone in that order."""
    old = [name for name, dtype in frame.schema.items() if dtype == _BEFORE]
    if old:
        frame = frame.with_columns(_with_all_fields(name) for name in old)
    if columns is None:
        behind = behind_which(frame.columns)
        if behind is not None:
            frame = frame.insert_column(frame.columns.index(behind) + 1, _no_tools(frame.height))
    elif TOOLS in columns and TOOLS not in frame.columns:
        frame = frame.with_columns(_no_tools(frame.height)).select(columns)
    return frame


def behind_which(columns: list[str]) -> str | None:
    """The column behind which `tools` is missing in a table of chats with these columns; None where nothing is."""
    # Tables of other things (generated rows with their passages) hold messages too, and have no tools.
    if TOOLS in columns or not {"row_id", "extra"} <= set(columns):
        return None
    return next((name for name in _LAST_OF_CHATS if name in columns), None)


def upgraded_types(columns: dict[str, str]) -> dict[str, str]:
    """Types by column, as a manifest has them, of the same table stored today."""
    found = {name: str(pl.List(MESSAGE)) if dtype == str(_BEFORE) else dtype for name, dtype in columns.items()}
    behind = behind_which(list(columns))
    if behind is None:
        return found
    place = list(found).index(behind) + 1
    return dict([*list(found.items())[:place], (TOOLS, str(pl.String())), *list(found.items())[place:]])


def _no_tools(rows: int) -> pl.Series:
    return pl.Series(TOOLS, [None], dtype=pl.String).new_from_index(0, rows)


def _with_all_fields(name: str) -> pl.Expr:
    fields = [pl.element().struct.field(field) for field in ("role", "content")]
    missing = [pl.lit(None, MESSAGE.to_schema()[field]).alias(field) for field in FIELDS[2:]]
    return pl.col(name).list.eval(pl.struct(*fields, *missing)).cast(pl.List(MESSAGE))
