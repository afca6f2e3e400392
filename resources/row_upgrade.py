"""Gives rows that an earlier version stored the columns and message fields that today's have, empty."""

import polars as pl

from llmops_assets.records.conversation import FIELDS, TOOLS

MESSAGE = pl.Struct({name: pl.Int8 if name == "weight" else pl.String for name in FIELDS})
"""Polars type of a message."""

SCORE = "score"
ADDED: dict[str, pl.DataType] = {TOOLS: pl.String(), SCORE: pl.Float64()}
"""Columns that tables of rows had not before."""

_BEFORE = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
_LAST_OF_CHATS = ("messages", "rejected")
"""The content column of a chat type behind which `tools` stands."""


def upgraded(frame: pl.DataFrame, columns: list[str] | None = None) -> pl.DataFrame:
    """A stored table as it would be stored today; with `columns`, those alone in that order."""
    old = [name for name, dtype in frame.schema.items() if dtype == _BEFORE]
    if old:
        frame = frame.with_columns(_with_all_fields(name) for name in old)
    if columns is None:
        for name, behind in missing(frame.columns):
            frame = frame.insert_column(frame.columns.index(behind) + 1, _empty(name, frame.height))
        return frame
    if lacking := [name for name in ADDED if name in columns and name not in frame.columns]:
        frame = frame.with_columns(_empty(name, frame.height) for name in lacking).select(columns)
    return frame


def missing(columns: list[str]) -> list[tuple[str, str]]:
    """The columns that a table of rows with these lacks today, each with the one behind which it stands."""
    # Tables of other things (generated rows with their passages) hold messages too, and have no tools.
    if not {"row_id", "extra"} <= set(columns):
        return []
    found = []
    behind = next((name for name in _LAST_OF_CHATS if name in columns), None)
    if TOOLS not in columns and behind is not None:
        found.append((TOOLS, behind))
    if SCORE not in columns and {"anchor", "negatives"} <= set(columns):
        found.append((SCORE, "negatives"))
    return found


def upgraded_types(columns: dict[str, str]) -> dict[str, str]:
    """Types by column, as a manifest has them, of the same table stored today."""
    found = {name: str(pl.List(MESSAGE)) if dtype == str(_BEFORE) else dtype for name, dtype in columns.items()}
    for name, behind in missing(list(columns)):
        place = list(found).index(behind) + 1
        found = dict([*list(found.items())[:place], (name, str(ADDED[name])), *list(found.items())[place:]])
    return found


def _empty(name: str, rows: int) -> pl.Series:
    return pl.Series(name, [None], dtype=ADDED[name]).new_from_index(0, rows)


def _with_all_fields(name: str) -> pl.Expr:
    fields = [pl.element().struct.field(field) for field in ("role", "content")]
    missing = [pl.lit(None, MESSAGE.to_schema()[field]).alias(field) for field in FIELDS[2:]]
    return pl.col(name).list.eval(pl.struct(*fields, *missing)).cast(pl.List(MESSAGE))
