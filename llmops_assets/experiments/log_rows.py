"""From the columns of a log to sums by user: what each row says, what it cannot say, and what was left out."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from llmops_assets.experiments.log_columns import Columns, LogError
from llmops_assets.experiments.log_files import Log, line_of
from llmops_assets.experiments.log_outcomes import Outcomes
from llmops_assets.experiments.log_repeats import Repeats
from llmops_assets.experiments.log_values import Account, as_name, is_there, numbers, times
from llmops_assets.experiments.sums_by_key import How, SumsByKey
from llmops_assets.experiments.user_sums import SUMS, UserSums

MOST_VARIANTS = 20
_COMPARED = 4


@dataclass(frozen=True)
class Rows:
    """A log as it was understood, added up.

    sums: a row for each user (a hash of 64 bits), phase and variant, in the order that they came in, with the columns
    of `UserSums`; categories: values and their total by category, user and variant, None where the log has no category;
    phases: their names, in order; height: rows that were read; left_out: how many did not count, by reason, and
    `examples` of them.
    """

    sums: pl.DataFrame
    categories: pl.DataFrame | None
    phases: tuple[str, ...]
    has: frozenset[str]
    height: int
    left_out: Mapping[str, int]
    examples: Mapping[str, str]
    notes: tuple[str, ...] = ()


def rows_of(log: Log, columns: Columns, slow_ms: float, latency_unit: str | None = None) -> Rows:
    """Understand and add up the rows of a log, a piece at a time: what is in memory grows with its users.

    A row without a user or a variant counts for nothing. One whose value is missing is a user who was there and gave
    none; one whose value is text or infinite is so too, and reported. Of a row that was logged twice the last one
    counts. Raises LogError where a column is not what it was taken for.
    """
    found, repeats = _added_up(log, columns, slow_ms, latency_unit, None)
    doubled = repeats.doubled()
    if len(doubled):
        earlier = repeats.earlier(lambda: _pieces(log, columns, Account(log.path)), doubled)
        if earlier.height:
            found, _ = _added_up(log, columns, slow_ms, latency_unit, earlier)
    return found


def sums_of(rows: Rows, variants: Sequence[str]) -> UserSums:
    """The sums of some variants by user; `variants` in the order of their arms, the control first."""
    arm = pl.DataFrame(
        {"variant": list(variants), "arm": range(len(variants))}, schema={"variant": pl.String, "arm": pl.Int64}
    )
    return UserSums.of(rows.sums.join(arm, on="variant", how="inner", maintain_order="left"))


class _Names:
    """Small numbers for the names of arms, phases or categories: to compare and to keep numbers costs least."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def numbered(self, text: pl.Series) -> pl.Series:
        """The number of each name; null is a name, too."""
        text = text.fill_null("none")
        found, left = np.zeros(len(text), dtype=np.uint32), np.ones(len(text), dtype=bool)
        for name, number in list(self.numbers.items())[:_COMPARED]:
            # To compare with a few names is faster than to look each up.
            mine = (text == name).to_numpy()
            found[mine] = number
            left &= ~mine
        if left.any():
            others = text.filter(pl.Series(left))
            for name in others.unique(maintain_order=True):
                self.numbers.setdefault(name, len(self.numbers))
            found[left] = others.replace_strict(self.numbers, return_dtype=pl.UInt32).to_numpy()
        return pl.Series(text.name, found)

    def named(self, column: pl.Series) -> pl.Series:
        return column.replace_strict(dict(enumerate(self.numbers)), return_dtype=pl.String)


def _added_up(
    log: Log, columns: Columns, slow_ms: float, latency_unit: str | None, earlier: pl.DataFrame | None
) -> tuple[Rows, Repeats]:
    """The sums of a log without the rows that are there later too (`earlier`), and the hashes of its rows."""
    account, repeats, has = Account(log.path), Repeats(list(columns.names)), _has(columns)
    outcomes = Outcomes(columns, account, slow_ms, latency_unit)
    sums, by_category = SumsByKey(_how(has)), SumsByKey(_how(frozenset()) | {"category": "first"})
    names = {role: _Names() for role in ("variant", "phase", "category")}

    def pieces() -> Iterator[pl.DataFrame]:
        for piece in _pieces(log, columns, account):
            if earlier is None:
                piece = repeats.hashed(piece)
            else:
                account.note(repeats.reason, piece.join(earlier, on="row", how="semi", maintain_order="left")["row"])
                piece = piece.join(earlier, on="row", how="anti", maintain_order="left")
            yield _understood(_numbered(piece, columns, names, log.path), columns, account, outcomes)

    height = 0
    for piece in _ahead(pieces()):
        height += piece.height
        if earlier is None:
            repeats.add(piece["hash"])
        sums.add(_addends(piece, has, "phase"))
        if "category" in has:
            by_category.add(_addends(piece, frozenset(), "category"))
    account.refuse(columns)
    outcomes.refuse()
    if not len(sums):
        raise LogError(
            f"no row of {log.path} has both a user ({columns['user']!r}) and a variant ({columns['variant']!r})"
        )
    added = sums.frame(_SCHEMA)
    added = added.with_columns(names["variant"].named(added["variant"]))
    added, phases = _with_phases(added, list(names["phase"].numbers) or ["1"], has)
    left_out = account.left_out
    read = height + sum(n for reason, n in left_out.items() if reason.startswith("rows "))
    of_categories = None
    if "category" in has:
        found = by_category.frame(_SCHEMA)
        of_categories = found.with_columns(names[role].named(found[role]) for role in ("variant", "category"))
    has, notes = _telling(added, has, columns)
    notes += ("some times have a zone and others have none: those are taken for UTC",) if len(account.zones) > 1 else ()
    return Rows(added, of_categories, phases, has, read, left_out, account.examples, notes), repeats


def _pieces(log: Log, columns: Columns, account: Account) -> Iterator[pl.DataFrame]:
    """The rows that have a user and a variant, by role and with their number; the others are noted."""
    offset = 0
    chosen = [pl.col(name).alias(role) for role, name in columns.names.items()]
    for piece in log.pieces(list(dict.fromkeys(columns.names.values()))):
        frame = piece.select(chosen).with_row_index("row", offset=offset)
        offset += piece.height
        for role in ("user", "variant"):
            if frame[role].dtype.is_nested():
                raise LogError(
                    f"the column {columns[role]!r} holds lists or objects: the {role} must be one value a row"
                )
        frame = frame.with_columns(as_name(frame["user"]), as_name(frame["variant"]))
        if frame["user"].str.contains("\n", literal=True).any():
            raise LogError(
                f'{log.path} has a user whose name runs over several lines: look for a quotation mark (") that nothing '
                f"closes, in or before {line_of(_first_row(frame), log.path)}"
            )
        for role in ("user", "variant"):
            known = is_there(frame[role])
            if not known.all():
                account.note(f"rows without a {role}", frame["row"].filter(~known))
                frame = frame.filter(known)
        yield frame.with_columns(pl.col("user").hash(0))


def _ahead(pieces: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The pieces, of which the next one is read while one is added up: neither holds the interpreter for long."""
    with ThreadPoolExecutor(1, thread_name_prefix="log") as reader:
        coming = reader.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = reader.submit(next, pieces, None)
            yield piece


def _numbered(frame: pl.DataFrame, columns: Columns, names: Mapping[str, _Names], path: Path) -> pl.DataFrame:
    """A piece with its variants, phases and categories as numbers; the phase is 0 in a log without any."""
    plain = {role: frame[role] for role in names if role in frame.columns}
    # The variant is text already (`_pieces`).
    texts = {role: one if role == "variant" else one.cast(pl.String).str.strip_chars() for role, one in plain.items()}
    found = [names[role].numbered(text) for role, text in texts.items()]
    if len(variants := names["variant"].numbers) > MOST_VARIANTS:
        raise LogError(
            f"the column {columns['variant']!r} of {path} has more than {MOST_VARIANTS} different values, such as "
            f"{min(variants)!r}: is it the variant? Name the column with --variant"
        )
    return frame.with_columns(found if "phase" in frame.columns else [*found, pl.lit(0, pl.UInt32).alias("phase")])


def _first_row(frame: pl.DataFrame) -> int:
    return int(frame.filter(pl.col("user").str.contains("\n", literal=True))["row"][0])


def _has(columns: Columns) -> frozenset[str]:
    """What a log tells of its rows beside their values."""
    names = columns.names
    has = {role for role in ("pre", "category") if role in names} | ({"at"} if "timestamp" in names else set())
    has |= {"slow"} if "latency" in names else set()
    return frozenset(has | ({"failed"} if {"status", "failed", "error"} & set(names) else set()))


def _telling(sums: pl.DataFrame, has: frozenset[str], columns: Columns) -> tuple[frozenset[str], tuple[str, ...]]:
    """Of what a log could tell, what it does tell; and notes of columns that say nothing in any row, or in an arm."""
    notes = []
    for role, counted, of, what in (
        ("failed", "counted", ("status", "failed", "error"), "which requests failed"),
        ("slow", "timed", ("latency",), "which requests were slow"),
    ):
        if role not in has:
            continue
        named = " and ".join(repr(columns[name]) for name in of if name in columns.names)
        by_arm = sums.group_by("variant").agg(pl.col(counted).sum()).sort("variant")
        silent = by_arm.filter(pl.col(counted) == 0)["variant"].to_list()
        if silent and len(silent) < by_arm.height:
            notes.append(f"{named} says nothing of {', '.join(silent)}: {what} there cannot be compared")
        elif silent:
            notes.append(f"{named} says nothing in any row: {what} is not compared")
            has -= {role}
    return has, tuple(notes)


def _understood(frame: pl.DataFrame, columns: Columns, account: Account, outcomes: Outcomes) -> pl.DataFrame:
    """A piece with value, and at, pre, failed, slow and latency_ms as far as the log tells (`_has`)."""
    frame = frame.with_columns(numbers(frame, "value", columns["value"], account))
    if "pre" in frame.columns:
        frame = frame.with_columns(numbers(frame, "pre", columns["pre"], account))
    if "timestamp" in frame.columns:
        frame = frame.with_columns(times(frame, columns["timestamp"], account).alias("at"))
    return outcomes.judged(frame)


_SCHEMA: Mapping[str, type[pl.DataType] | pl.DataType] = {
    **SUMS,
    "user": pl.UInt64,
    "variant": pl.UInt32,
    "phase": pl.UInt32,
    "category": pl.UInt32,
    "row": pl.UInt32,
    "first_at": pl.Datetime("us", "UTC"),
    "last_at": pl.Datetime("us", "UTC"),
}


def _how(has: frozenset[str]) -> dict[str, How]:
    """How the sums of two pieces become one."""
    how: dict[str, How] = {"user": "first", "variant": "first", "phase": "first", "row": "min"}
    how |= dict.fromkeys(("requests", "ratings", "total", "squares"), "sum")
    how |= {"first_at": "min", "last_at": "max"} if "at" in has else {}
    more = {"pre": ("pre_values", "pre_total"), "failed": ("counted", "failed")}
    more["slow"] = ("timed", "slow", "latency_ms")
    return how | {name: "sum" for role, names in more.items() if role in has for name in names}


def _addends(frame: pl.DataFrame, has: frozenset[str], by: str) -> pl.DataFrame:
    """What each row adds to the sums of its user, variant and `by`, under one hash of them."""
    value = pl.col("value")
    columns = [
        (pl.col("user") ^ pl.col("variant").hash(1) ^ pl.col(by).hash(2)).alias("key"),
        *(pl.col(name) for name in dict.fromkeys(("user", "variant", "phase", by, "row"))),
        pl.lit(1, pl.Int64).alias("requests"),
        value.is_not_null().cast(pl.Int64).alias("ratings"),
        value.alias("total"),
        (value**2).alias("squares"),
    ]
    if "at" in has:
        columns += [pl.col("at").alias("first_at"), pl.col("at").alias("last_at")]
    if "pre" in has:
        columns += [pl.col("pre").is_not_null().cast(pl.Int64).alias("pre_values"), pl.col("pre").alias("pre_total")]
    if "failed" in has:
        failed = pl.col("failed")
        columns += [failed.is_not_null().cast(pl.Int64).alias("counted"), failed.cast(pl.Int64)]
    if "slow" in has:
        answered = pl.col("slow").is_not_null()
        columns += [
            answered.cast(pl.Int64).alias("timed"),
            pl.col("slow").cast(pl.Int64),
            pl.when(answered).then(pl.col("latency_ms")).alias("latency_ms"),
        ]
    return frame.select(columns)


def _with_phases(sums: pl.DataFrame, known: list[str], has: frozenset[str]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """With phases numbered in the order in which they came (in time, else as numbers, else in the log), from 1."""
    by = ["first_at", "row"] if "at" in has else ["row"]
    first = sums.group_by("phase").agg(pl.col(by).min()).sort(by, nulls_last=True)
    order = first["phase"].to_list()
    if "at" not in has and all(name.lstrip("-").isdigit() for name in known):
        order.sort(key=lambda number: int(known[number]))
    numbered = pl.col("phase").replace_strict(dict(zip(order, range(1, len(order) + 1), strict=True)))
    return sums.with_columns(numbered).sort(by, nulls_last=True), tuple(known[number] for number in order)
