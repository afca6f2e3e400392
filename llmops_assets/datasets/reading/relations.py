"""What a label says of two texts (entailment, a duplicate, a score), and the rows that labels make together."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of

Kind = Literal["positive", "negative", "neutral", "number", "unscored"]

LABELS = ("gold_label", "label", "labels", "entailment_judgment", "entailment_label")
SCORES = ("score", "similarity", "similarity_score", "sts_score", "relatedness_score", "relatedness", "real-label")
BINARY = ("is_duplicate", "duplicate", "is_paraphrase", "paraphrase", "binary-label")
_WORDS: dict[str, Kind] = {
    "entailment": "positive", "entail": "positive", "entails": "positive", "e": "positive", "함의": "positive",
    "duplicate": "positive", "paraphrase": "positive", "equivalent": "positive", "similar": "positive",
    "related": "positive", "relevant": "positive", "true": "positive", "yes": "positive", "positive": "positive",
    "neutral": "neutral", "n": "neutral", "중립": "neutral",
    "contradiction": "negative", "contradictory": "negative", "contradict": "negative", "contradicts": "negative",
    "c": "negative", "모순": "negative", "not_duplicate": "negative", "not_paraphrase": "negative",
    "not_equivalent": "negative", "different": "negative", "unrelated": "negative", "irrelevant": "negative",
    "false": "negative", "no": "negative", "negative": "negative",
}  # fmt: skip
_OF_INFERENCE = {word for word in _WORDS if word[:2] in ("en", "ne", "co", "함의", "중립", "모순")} - {"negative"}
_NOT_SAID = {"", "-", "-1", "none", "null", "nan", "x"}

HIGHEST = 5.0
"""Where scores of a file go beyond 1 they are taken for shares of this."""

OF_NUMBERS = (
    "which of entailment, neutral and contradiction a number stands for differs between datasets: write the words, or "
    "name them with --map label.0=entailment --map label.1=neutral --map label.2=contradiction in the right order"
)


@dataclass(frozen=True)
class Relation:
    """What the label of a row says of its two texts. `value` is the number, where it is one whose scale is not known
    before the whole file is; `scored`: its field is called a score."""

    kind: Kind
    other: str
    field: str
    value: float | None = None
    scored: bool = False
    inference: bool = False
    """Whether it is of a premise and a hypothesis, of which a number says nothing by itself and a contradiction is more
    than a low score."""


def relation_of(row: Mapping[str, Any], other: str, inference: bool) -> tuple[Relation | None, set[str]]:
    """The label of a row about its anchor and the text `other`, and its fields; None for a row without one.

    RowFault for a label that says nothing that is known.
    """
    nested = next((name for name in LABELS if isinstance(row.get(name), Mapping)), None)
    if nested is not None:
        # KLUE-STS keeps a score, its mean and a binary label in one object.
        found, _ = relation_of({**row[nested]}, other, inference)
        return found, {nested}
    for name in SCORES:
        if _given(row.get(name)):
            return Relation("number", other, name, _number(row[name], name), scored=True), {name}
    for name in (*LABELS, *BINARY):
        if name not in row:
            continue
        value = row[name]
        if not _given(value):
            raise RowFault(name, f"{value!r}: nobody agreed on what the two texts are to each other")
        if isinstance(value, bool):
            return Relation("positive" if value else "negative", other, name), {name}
        word = str(value).strip().lower()
        if word in _WORDS:
            return Relation(_WORDS[word], other, name, inference=inference or word in _OF_INFERENCE), {name}
        return Relation("number", other, name, _number(value, name), inference=inference), {name}
    if (unscored := next((name for name in SCORES if name in row), None)) is not None:
        return Relation("unscored", other, unscored), {unscored}
    return None, set()


def _given(value: Any) -> bool:
    return value is not None and not (isinstance(value, str) and value.strip().lower() in _NOT_SAID) and value != -1


def _number(value: Any, field: str) -> float:
    try:
        number = float(value) if not isinstance(value, (bool, list, dict)) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        shown = kind_of(value) if isinstance(value, (list, dict)) else repr(value)
        raise RowFault(
            field, f"{shown} says nothing that is known of two texts: give a score, or words such as entailment"
        )
    return number


@dataclass
class _Anchor:
    row: dict[str, Any]
    positives: list[str] = field(default_factory=list)
    negatives: list[str] = field(default_factory=list)
    neutral: list[str] = field(default_factory=list)
    rows: int = 0
    first_field: str = "label"


@dataclass(frozen=True)
class Made:
    """A row that labels made, of how many rows of the file; `fault` is why it is none after all."""

    row: dict[str, Any]
    rows: int
    fault: RowFault | None = None


@dataclass
class Labelled:
    """The labelled rows of a file, which are understood together: by the scale of their numbers, and by anchor."""

    rows: list[tuple[dict[str, Any], Relation]] = field(default_factory=list)

    def add(self, row: dict[str, Any], relation: Relation) -> None:
        self.rows.append((row, relation))

    def made(self) -> Iterator[Made]:
        """The rows that come of them: scored pairs one by one, the others joined by anchor.

        A contradiction, or a pair that is none, is a hard negative of its anchor's positives; a neutral text is kept
        in the metadata. An anchor without a positive is refused, unless most are: then each pair has a score, 1 or 0.
        """
        numbers = [relation for _, relation in self.rows if relation.kind == "number"]
        scale, fault = _scale(numbers)
        scored = any(relation.scored for relation in numbers)
        known: list[tuple[dict[str, Any], Relation]] = []
        for row, relation in self.rows:
            if relation.kind == "unscored":
                # A table has the column for all rows or none: where no row has a score, none is missing.
                reason = "no score, which other rows have: nobody said how alike the two texts are"
                fault_of_row = RowFault(relation.field, reason) if scored else None
                yield Made({**row, "positives": [relation.other]}, 1, fault_of_row)
            elif relation.kind != "number":
                known.append((row, relation))
            elif fault is not None:
                yield Made(row, 1, RowFault(relation.field, fault.format(value=f"{relation.value:g}")))
            elif scale is None:
                kind: Kind = "positive" if relation.value else "negative"
                known.append((row, Relation(kind, relation.other, relation.field)))
            elif not 0 <= relation.value <= scale:
                reason = f"a score of {relation.value:g}, where the others go from 0 to {scale:g}"
                yield Made(row, 1, RowFault(relation.field, reason))
            else:
                yield Made({**row, "positives": [relation.other], "score": relation.value / scale}, 1)
        yield from _joined(known)


def _scale(numbers: list[Relation]) -> tuple[float | None, str | None]:
    """What the numbers of a file are shares of, None where they only say yes or no; or why they say nothing."""
    if not numbers:
        return None, None
    values = {relation.value for relation in numbers}
    scored = any(relation.scored for relation in numbers)
    if not scored and any(relation.inference for relation in numbers):
        return None, f"the label is {{value}}, a number: {OF_NUMBERS}"
    if not scored and values <= {0.0, 1.0}:
        return None, None
    if not scored and values <= {0.0, 1.0, 2.0}:
        return None, f"the labels of this file are 0, 1 and 2, and this one is {{value}}: {OF_NUMBERS}"
    highest = max(values)
    if highest > HIGHEST:
        return None, (
            f"the label is {{value}} and the highest {highest:g}: scores go from 0 to 1 or from 0 to 5, scale them so"
        )
    return (1.0 if highest <= 1 else HIGHEST), None


def _joined(rows: list[tuple[dict[str, Any], Relation]]) -> Iterator[Made]:
    anchors: dict[str, _Anchor] = {}
    for row, relation in rows:
        anchor = anchors.setdefault(row["anchor"].strip(), _Anchor(row, first_field=relation.field))
        anchor.rows += 1
        texts = {"positive": anchor.positives, "negative": anchor.negatives}.get(relation.kind, anchor.neutral)
        if relation.other not in texts:
            texts.append(relation.other)
    lonely = sum(not anchor.positives for anchor in anchors.values())
    if lonely > _FEW * len(anchors) and not any(relation.inference for _, relation in rows):
        for row, relation in rows:
            yield Made({**row, "positives": [relation.other], "score": float(relation.kind == "positive")}, 1)
        return
    for anchor in anchors.values():
        yield _of_anchor(anchor)


_FEW = 0.1
"""Share of anchors that may have no positive before pairs of yes and no are understood as scores."""


def _of_anchor(anchor: _Anchor) -> Made:
    both = set(anchor.positives) & set(anchor.negatives)
    row = {**anchor.row, "positives": anchor.positives, "negatives": anchor.negatives}
    if anchor.neutral:
        row["neutral"] = anchor.neutral
    if both:
        reason = f"one text is labelled as belonging to its anchor and as not: {next(iter(both))[:60]!r}"
        return Made(row, anchor.rows, RowFault(anchor.first_field, reason))
    if not anchor.positives:
        counts = f"{len(anchor.negatives)} of its texts contradict it or are others, {len(anchor.neutral)} are neutral"
        reason = f"nothing of the file is positive for this anchor ({counts}), so there is nothing to bring near to it"
        return Made(row, anchor.rows, RowFault(anchor.first_field, reason))
    return Made(row, anchor.rows)
