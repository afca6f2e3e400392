"""Personal data in whole tables: a prefilter that changes no result, then the patterns, then names."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import Literal

import msgspec
import polars as pl

from llmops_assets.datasets import names, privacy, texts
from llmops_assets.datasets.pattern import ODD, Pattern, fold, gate, superset
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

_FEW = 64
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


@lru_cache(16)
def _gates(patterns: tuple[Pattern, ...]) -> tuple[str, str]:
    """What a text must hold for any numeric pattern, and for any of the others ("" where there are none)."""
    return gate(p for p in patterns if p.numeric), gate(p for p in patterns if not p.numeric)


def _may_hold(column: str, patterns: tuple[Pattern, ...]) -> pl.Expr:
    """Whether a pattern could be found in a text of the column or in a part of it; true for odd texts."""
    numeric, others = _gates(patterns)
    text = pl.col(column)
    found = text.str.contains(ODD)
    if numeric:
        figures = text.str.contains(privacy.FIGURE)
        found |= pl.when(figures).then(text).str.contains(numeric).fill_null(False)
    return found | text.str.contains(others) if others else found


def candidates(values: pl.Series, patterns: Sequence[Pattern]) -> list[tuple[int, str, list[int]]]:
    """Texts that a pattern could be found in: the text's number, the text, the numbers of those patterns.

    A superset of where the patterns are found. Texts with characters that are folded first (full-width digits, unusual
    dashes) or that engines read differently are candidates for all patterns.
    """
    frame = values.alias("value").to_frame().with_row_index("text").filter(_may_hold("value", tuple(patterns)))
    frame = frame.with_columns(odd=pl.col("value").str.contains(ODD))
    plain = frame.filter(~pl.col("odd"))
    found: dict[int, list[int]] = {text: list(range(len(patterns))) for text in frame.filter("odd")["text"]}
    flags = plain.select(
        pl.col("value").str.contains(superset(pattern.expression)).alias(str(number))
        for number, pattern in enumerate(patterns)
    )
    for text, flagged in zip(plain["text"], flags.to_numpy(), strict=True):
        found[text] = flagged.nonzero()[0].tolist()
    return [(text, value, found[text]) for text, value in frame.select("text", "value").iter_rows() if found[text]]


def _found_in_columns(values: pl.Series, patterns: Sequence[Pattern]) -> dict[int, list[privacy.Span]]:
    found: dict[int, list[privacy.Span]] = {}
    for number, text, flagged in candidates(values, patterns):
        folded, positions = fold(text)
        spans = [
            privacy.Span(start, end, patterns[n].type, patterns[n].score)
            for n in flagged
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
    found: dict[int, list[privacy.Span]] = {}
    for number, *span in spans.select("text", "start", "end", "type", "score").iter_rows():
        found.setdefault(number, []).append(privacy.Span(*span))
    masked = [
        privacy.replace(text, places, how.placeholders, how.stand_in)
        for text, places in zip(values.gather(list(found)), found.values(), strict=True)
    ]
    return values.scatter(list(found), masked)


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


def _suspicious(rows: pl.DataFrame, patterns: tuple[Pattern, ...]) -> pl.DataFrame:
    keys = "(?i:" + "|".join(f'"{key}"' for key in _NAME_KEYS) + ")"
    extra = pl.col("extra")
    return (
        rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "extra")
        # A value stands in the JSON as it is, unless it is escaped: what could be found in it could be found here.
        .filter(_may_hold("extra", patterns) | extra.str.contains(keys) | extra.str.contains("\\", literal=True))
        .filter(extra != "{}")
    )


def _in_extra(rows: pl.DataFrame, how: Detector) -> pl.DataFrame:
    leaves = [
        (row, part, key.lower() in _NAME_KEYS and is_name(text), text)
        for row, extra in _suspicious(rows, how.patterns).iter_rows()
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
