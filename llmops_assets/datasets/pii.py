"""Personal data in whole tables: a prefilter that changes no result, then the patterns, then names."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

import msgspec
import polars as pl

from llmops_assets.datasets import names, privacy, texts
from llmops_assets.datasets.pattern import FOLDABLE, Pattern, fold, superset
from llmops_assets.datasets.patterns import PATTERNS, is_name, own_pattern
from llmops_assets.datasets.pseudonyms import Pseudonyms, key_from
from llmops_assets.specs.policy import Pii

SPANS = {
    "text": pl.UInt32(),
    "start": pl.UInt32(),
    "end": pl.UInt32(),
    "type": pl.String(),
    "score": pl.Float64(),
}

_ROUNDS = 6
"""What stood behind a masked number may now stand behind its label: masking is repeated, and ends long before this."""

_FEW = 500
"""Texts under which compiling the prefilter costs more than it saves."""

NameFinder = Callable[[list[str]], list[list[privacy.Span]]]
"""Names in each of some texts; `names.find_names` is one."""


@dataclass(frozen=True)
class Detector:
    """What counts as personal data in a dataset, and what is done with it; the same for report, cleaning and checks."""

    names: NameFinder | None = None
    patterns: tuple[Pattern, ...] = PATTERNS
    placeholders: Mapping[str, str] = field(default_factory=lambda: privacy.PLACEHOLDERS)
    mode: Literal["mask", "drop", "pseudonymise"] = "mask"
    pseudonyms: Pseudonyms | None = None

    @property
    def shown(self) -> "Detector":
        """The same for samples that people look at: always masked."""
        return replace(self, mode="mask", pseudonyms=None)

    @property
    def stand_in(self) -> privacy.StandIn | None:
        """What takes a value's place instead of the bare placeholder."""
        return self.pseudonyms.of if self.pseudonyms is not None else None


PATTERNS_ONLY = Detector()


def detector(rules: Pii, dataset: str) -> Detector:
    """The detector that a policy describes, for one dataset (its name, with or without the version).

    PseudonymKeyError when the policy wants pseudonyms and there is no key.
    """
    own = rules.recognizers
    pseudonyms = None
    if rules.mode == "pseudonymise":
        pseudonyms = Pseudonyms(dataset.partition("@")[0], key_from())
    return Detector(
        names=names.find_names if rules.names else None,
        patterns=(*PATTERNS, *map(own_pattern, own)),
        placeholders={**{recognizer.type: recognizer.shown for recognizer in own}, **rules.placeholders},
        mode=rules.mode,
        pseudonyms=pseudonyms,
    )


_NAME_KEYS = ("name", "이름", "성명", "성함", "고객명", "customer_name", "user_name", "full_name")


@dataclass(frozen=True)
class Masked:
    """A table without its personal data.

    `rows` numbers the rows that changed; `counts` are spans by type; `by_row` has the row and type of each span.
    """

    frame: pl.DataFrame
    counts: dict[str, int]
    rows: list[int]
    by_row: pl.DataFrame


def candidates(values: pl.Series, patterns: Sequence[Pattern]) -> pl.DataFrame:
    """Texts that a pattern could be found in: `text` (number), `value`, `odd`, and a flag for each pattern's number.

    The flags are a superset of where the patterns are found. `odd` are texts with characters that are folded first
    (full-width digits, unusual dashes): candidates for all patterns.
    """
    frame = pl.DataFrame({"value": values, "text": pl.int_range(len(values), dtype=pl.UInt32, eager=True)})
    frame = frame.with_columns(odd=pl.col("value").str.contains(FOLDABLE))
    frame = frame.with_columns(figures=pl.col("odd") | pl.col("value").str.contains(privacy.FIGURE))
    flags = []
    for numeric in (True, False):
        table = frame.filter("figures") if numeric else frame
        chosen = {str(n): pattern for n, pattern in enumerate(patterns) if pattern.numeric is numeric}
        found = table.select(
            "text",
            **{
                number: pl.col("odd") | pl.col("value").str.contains(superset(pattern.expression))
                for number, pattern in chosen.items()
            },
        )
        flags.append(found.filter(pl.any_horizontal(*chosen)) if chosen else found.clear())
    numbers = pl.concat([flag.select("text") for flag in flags]).unique()
    table = frame.join(numbers, on="text", how="semi")
    for flag in flags:
        table = table.join(flag, on="text", how="left")
    return table.with_columns(pl.col(str(n)).fill_null(False) for n in range(len(patterns))).sort("text")


def _found_in_columns(values: pl.Series, patterns: Sequence[Pattern]) -> dict[int, list[privacy.Span]]:
    found: dict[int, list[privacy.Span]] = {}
    table = candidates(values, patterns)
    flags = table.select(str(n) for n in range(len(patterns))).to_numpy()
    for number, text, odd, flagged in zip(table["text"], table["value"], table["odd"], flags, strict=True):
        folded, positions = fold(text) if odd else (text, None)
        spans = [
            privacy.Span(start, end, patterns[n].type, patterns[n].score)
            for n in flagged.nonzero()[0]
            for start, end in privacy.matches(patterns[n], folded)
        ]
        if spans:
            found[number] = privacy.unfolded(spans, positions)
    return found


def find(values: pl.Series, how: Detector = PATTERNS_ONLY) -> pl.DataFrame:
    """Spans of personal data in each text: columns `text` (number), `start`, `end` (characters), `type`, `score`.

    The same spans as `privacy.find` gives for each text alone, and with `how.names` those of names besides. Overlaps
    are resolved; the result is in order.
    """
    distinct = values.unique(maintain_order=True)
    if len(distinct) < _FEW:
        found = {number: privacy.find(text, how.patterns) for number, text in enumerate(distinct)}
    else:
        found = _found_in_columns(distinct, how.patterns)
    if how.names is not None:
        for number, spans in enumerate(how.names(distinct.to_list())):
            if spans:
                found.setdefault(number, []).extend(spans)
    resolved = [
        (number, span.start, span.end, span.type, span.score)
        for number in sorted(found)
        for span in privacy.resolve(found[number])
    ]
    spans = pl.DataFrame(resolved, schema=SPANS, orient="row")
    if len(distinct) == len(values):
        return spans
    where = pl.DataFrame({"value": values, "number": pl.int_range(len(values), dtype=pl.UInt32, eager=True)}).join(
        pl.DataFrame({"value": distinct, "text": pl.int_range(len(distinct), dtype=pl.UInt32, eager=True)}),
        on="value",
        how="left",
    )
    return (
        where.join(spans, on="text")
        .select(pl.col("number").alias("text"), "start", "end", "type", "score")
        .sort("text", "start")
    )


def replaced(values: pl.Series, spans: pl.DataFrame, how: Detector) -> pl.Series:
    """The texts with each span's placeholder in its place."""
    if not spans.height:
        return values
    numbers, masked = [], []
    for number, part in spans.group_by("text", maintain_order=True):
        found = [privacy.Span(s, e, t, p) for s, e, t, p in part.select("start", "end", "type", "score").iter_rows()]
        numbers.append(number[0])
        masked.append(privacy.replace(values[number[0]], found, how.placeholders, how.stand_in))
    return values.scatter(numbers, masked)


def mask_texts(values: pl.Series, how: Detector) -> pl.Series:
    """The texts without their personal data: for showing some of them."""
    for _ in range(_ROUNDS):
        spans = find(values, how)
        if not spans.height:
            break
        values = replaced(values, spans, how)
    return values


def find_in_rows(rows: pl.DataFrame, dataset_type: str, how: Detector = PATTERNS_ONLY) -> pl.DataFrame:
    """Spans in all content and metadata of canonical rows: `row` (number), `column`, `part`, `start`, `end`, `type`,
    `score`, and the `text` that they are in.

    Metadata is `extra`; there a span covers one whole value and `start` and `end` are positions in that value.
    """
    flat = texts.flat_texts(rows, dataset_type).with_row_index("number")
    spans = find(flat["text"], how).rename({"text": "number"})
    content = spans.join(flat, on="number").select("row", "column", "part", "start", "end", "type", "score", "text")
    return pl.concat([content, _in_extra(rows, how)]).sort("row", "column", "part", "start")


def _leaves(value: object, key: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield key, str(value)


def _suspicious(rows: pl.DataFrame) -> pl.DataFrame:
    keys = "|".join(f'"{key}"' for key in _NAME_KEYS)
    return (
        rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "extra")
        .filter(pl.col("extra").str.contains(rf"[0-9]{{4}}|[가-힣]\s?[0-9]|@|(?i:{keys})|이름|성함"))
        .filter(pl.col("extra") != "{}")
    )


def _in_extra(rows: pl.DataFrame, how: Detector) -> pl.DataFrame:
    leaves = [
        (row, part, key.lower() in _NAME_KEYS and is_name(text), text)
        for row, extra in _suspicious(rows).iter_rows()
        for part, (key, text) in enumerate(_leaves(msgspec.json.decode(extra)))
    ]
    table = pl.DataFrame(
        leaves, schema={"row": pl.UInt32, "part": pl.UInt32, "named": pl.Boolean, "text": pl.String}, orient="row"
    ).with_row_index("number")
    spans = find(table["text"], replace(how, names=None)).rename({"text": "number"})
    found = spans.join(table.filter(~pl.col("named")), on="number")
    named = table.filter("named").with_columns(
        start=pl.lit(0, pl.UInt32), end=pl.col("text").str.len_chars(), type=pl.lit("PERSON"), score=pl.lit(0.9)
    )
    columns = ["row", pl.lit("extra").alias("column"), "part", "start", "end", "type", "score", "text"]
    return pl.concat([found.select(columns), named.select(columns)]).sort("row", "part", "start")


def _masked_leaves(value: object, masked: Mapping[int, str], count: Iterator[int]) -> object:
    """The object with the leaves that are in `masked`, by their order, replaced."""
    if isinstance(value, dict):
        return {name: _masked_leaves(item, masked, count) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked_leaves(item, masked, count) for item in value]
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return masked.get(next(count), value)
    return value


def _mask_extra(rows: pl.DataFrame, spans: pl.DataFrame, how: Detector) -> pl.Series:
    numbers, replaced = [], []
    for (row,), found in spans.group_by("row", maintain_order=True):
        masked = {}
        for (part,), places in found.group_by("part", maintain_order=True):
            kept = [privacy.Span(*place) for place in places.select("start", "end", "type", "score").iter_rows()]
            masked[part] = privacy.replace(places["text"][0], kept, how.placeholders, how.stand_in)
        value = _masked_leaves(msgspec.json.decode(rows["extra"][row]), masked, count())
        numbers.append(row)
        replaced.append(msgspec.json.encode(value, order="sorted").decode())
    return rows["extra"].scatter(numbers, replaced)


def mask_rows(rows: pl.DataFrame, dataset_type: str, how: Detector) -> Masked:
    """The rows with all personal data of content and metadata replaced by its type's placeholder.

    Masking is repeated on the rows that changed until nothing more is found, so that a second look finds nothing.
    """
    flat = texts.flat_texts(rows, dataset_type)
    by_row = [pl.DataFrame(schema={"row": pl.UInt32, "type": pl.String})]
    pending = pl.Series(range(flat.height), dtype=pl.UInt32)
    values = flat["text"]
    for _ in range(_ROUNDS):
        found = find(values.gather(pending), how)
        if not found.height:
            break
        spans = found.with_columns(text=pending.gather(found["text"]))
        by_row.append(spans.select(flat["row"].gather(spans["text"]), "type"))
        values = replaced(values, spans, how)
        pending = spans["text"].unique(maintain_order=True)
    masked = texts.with_texts(rows, dataset_type, flat.with_columns(values.alias("text"))) if len(by_row) > 1 else rows
    extra = _in_extra(rows, how)
    if extra.height:
        by_row.append(extra.select("row", "type"))
        masked = masked.with_columns(_mask_extra(rows, extra, how))
    spans = pl.concat(by_row)
    return Masked(
        frame=masked,
        counts=dict(spans.group_by("type").len().sort("type").iter_rows()),
        rows=spans["row"].unique().sort().to_list(),
        by_row=spans,
    )
