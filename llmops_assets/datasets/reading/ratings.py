"""Labels and ratings of single answers: what they say, and which rows must not be learned from because of one."""

import re
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of

LABELS = ("label", "kto_tag", "desirable", "thumbs_up", "is_good", "is_correct")
"""Fields that say whether an answer is wanted."""

VERDICTS = (
    "accepted", "is_accepted", "approved", "is_approved", "correct", "helpful", "is_helpful", "is_safe", "valid",
    "is_valid", "is_wanted", "passed", "preference", "verdict", "quality", "판정",
)  # fmt: skip
"""Fields that may say that an answer is not wanted, and are something else as often."""

RATINGS = (
    "rating", "ratings", "stars", "rank", "feedback", "thumbs", "human_rating", "helpfulness", "correctness",
    "overall_score", "overall_rating", "평점", "별점", "만족도",
)  # fmt: skip
"""Fields that say how good an answer is, on a scale that nobody knows."""

_GOOD = {"true", "1", "good", "desirable", "chosen", "positive", "yes", "up", "thumbs_up", "like", "+1", "👍", "좋음"}
_BAD = {"false", "0", "-1", "bad", "undesirable", "rejected", "negative", "no", "down", "thumbs_down", "dislike", "👎",
        "나쁨"}  # fmt: skip

HOW = (
    "register the file as type kto, with --map label=FIELD where the label is called otherwise, or with "
    "--map label.at_least_4=FIELD where a rating of 4 and more is good"
)


_BAD_WORDS = {"false", "bad", "undesirable", "rejected", "dislike", "thumbs_down", "👎", "나쁨", "싫어요"}
"""Labels in words that say nothing else than that an answer is not wanted."""


def label_of(value: Any, field: str) -> bool:
    """Whether a label says that an answer is wanted; RowFault for one that says neither."""
    if isinstance(value, bool):
        return value
    written = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
    if written in _GOOD:
        return True
    if written in _BAD:
        return False
    what = f"{kind_of(value)}" if value is None or isinstance(value, (list, dict)) else f"{value!r}"
    raise RowFault(field, f"expected true or false (good or bad, 1 or 0), got {what}; a rating has to be mapped: {HOW}")


def refuse_rated(row: Mapping[str, Any]) -> None:
    """RowFault for a row of an answer to be learned that says of itself how good the answer is.

    ``label: true`` is as good as none. ``label: 2`` may be anything (a class, a topic), and stays in the metadata.
    """
    for field in (*LABELS, *VERDICTS):
        value = row.get(field)
        spelled = value.strip().lower() if isinstance(value, str) else None
        if value is False or spelled in _BAD_WORDS or (spelled in ("no", "0") and field != "label"):
            raise RowFault(field, f"{field}: {spelled or 'false'} says that this answer is not wanted: {HOW}")
        if isinstance(value, (int, float)) and (value == 0 and field != "label"):
            raise RowFault(field, f"{field}: 0 says that this answer is not wanted: {HOW}")
    for field in RATINGS:
        value = row.get(field)
        if value is None or value == "":
            continue
        if isinstance(value, (bool, int, float, str)) and value is not True:
            raise RowFault(
                field, f"{field}: {value} says how good this answer is, and all answers would be learned alike: {HOW}"
            )


_WITHDRAWN = (
    "deleted", "is_deleted", "removed", "is_removed", "discarded", "is_discarded", "excluded", "is_excluded", "exclude",
    "ignored", "ignore", "skip", "spam", "is_spam", "invalid", "is_invalid", "hidden",
)  # fmt: skip
"""Fields that say of a row that it is none, where they are true."""
_STATES = ("status", "review_status", "annotation_status", "label_status", "record_status", "상태")
_GONE = {"deleted", "discarded", "rejected", "removed", "excluded", "spam", "invalid", "삭제", "폐기", "반려", "제외"}
"""What tools of annotation write there of a record that nobody is to use."""
_TRUE = {"true", "1", "y", "yes"}


def refuse_withdrawn(row: Mapping[str, Any], dataset_type: str) -> None:
    """RowFault for a row that says of itself that it was taken out: as metadata it would be learned like the others.

    Of preferences a status may be the label itself.
    """
    for field in _WITHDRAWN:
        value = row.get(field)
        if value is True or (isinstance(value, (int, str)) and str(value).strip().lower() in _TRUE):
            raise RowFault(field, f"{field}: {value} says that the row was taken out: leave it out of the file")
    if dataset_type in ("rlhf_pair", "kto"):
        return
    for field in _STATES:
        value = row.get(field)
        if isinstance(value, str) and value.strip().lower() in _GONE:
            raise RowFault(field, f"{field}: {value.strip()} says that the row was taken out: leave it out of the file")


_THRESHOLD = re.compile(r"label\.at_least_(-?\d+(?:\.\d+)?)")


def labels_of_mapping(mapping: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], float | None]:
    """A mapping's columns by field, its names by label (``label.0=entailment``), and the rating from which an answer is
    good (``label.at_least_4=stars``)."""
    columns, names, least = {}, {}, None
    for canonical, column in mapping.items():
        if match := _THRESHOLD.fullmatch(canonical):
            columns["label"], least = column, float(match[1])
        elif canonical.startswith("label."):
            names[canonical.removeprefix("label.")] = column
        else:
            columns[canonical] = column
    return columns, names, least


def with_named_label(row: dict[str, Any], names: Mapping[str, str], least: float | None) -> dict[str, Any]:
    """A row whose label is what a mapping says that it means; RowFault for one that it does not name."""
    field = "label" if "label" in row else "gold_label"
    if field not in row:
        return row
    value = row[field]
    if least is not None:
        try:
            return {**row, field: float(value) >= least}
        except (TypeError, ValueError):
            raise RowFault(field, f"expected a rating, got {kind_of(value)} {value!r}") from None
    written = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    if written not in names:
        raise RowFault(field, f"the mapping names the labels {', '.join(names)}, and not {written!r}")
    return {**row, field: names[written]}
