"""How good a row is to learn from: one score from 0 to 1 with its parts, and words that hurt someone."""

import re
import zlib
from collections.abc import Iterable
from typing import Protocol

import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.datasets.lexicon import toxic_stems
from llmops_assets.datasets.privacy import superset

PARTS = ("length", "diversity", "repetition", "originality", "language", "form")
SCORES = {"row_id": pl.String, "score": pl.Float64, **dict.fromkeys(PARTS, pl.Float64), "answer_chars": pl.Int64}

_HANGUL = "[가-힣]"
_LATIN = "[A-Za-z]"
_ASKS_FOR_LANGUAGE = r"(?i)영어|영문|영작|번역|translat|korean|hangul|한국어|english|일본어|중국어|코드|code|python"
_SHORTEST_COMPRESSED = 200
"""Characters below which compression says nothing: the header weighs more than the text."""


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole).otherwise(0.0)


def compression_ratio(values: pl.Series) -> pl.Series:
    """Compressed by uncompressed size of each text (zlib, level 1); null for texts under 200 characters.

    A row at a time, because polars has no compression.
    """
    ratios = []
    for text in values:
        data = text.encode("utf-8", "replace") if text else b""
        ratios.append(len(zlib.compress(data, 1)) / len(data) if len(data) >= _SHORTEST_COMPRESSED else None)
    return pl.Series("compression", ratios, dtype=pl.Float64)


def scores(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """One line a row: row_id, score, its parts, and the length of the answer in characters.

    Every part is between 0 (bad) and 1. The score is their weakest, drawn up a little by the mean of all: min + 0.2 ·
    (mean − min), so that one grave fault cannot hide behind five good parts.

    length: characters of the answer, 0.3 at one, 1 from 16 on (Hangul counts double: a syllable says more).
    diversity: distinct words by words (distinct-1; Li et al., 2016), expected lower the longer the text, and distinct
    characters: twelve are few for any sentence.
    repetition: 1 less the share of what repeats, by compression and by runs of one character.
    originality: the answer is not the prompt again.
    language: prompt and answer are of one script, unless another was asked for.
    form: what of grammar shows without a model: replacement characters, stray jamo, unbalanced brackets, no word.
    """
    table = rows.select("row_id", texts.prompt_of(dataset_type), texts.answer_of(dataset_type))
    table = table.with_columns(compression_ratio(table["answer"]))
    answer, prompt = pl.col("answer"), pl.col("prompt").fill_null("")
    chars = answer.str.len_chars()
    words = answer.str.to_lowercase().str.extract_all(r"[0-9A-Za-z가-힣]+|[^\s0-9A-Za-z가-힣]")
    letters = answer.str.count_matches(_HANGUL) + answer.str.count_matches(_LATIN)
    asked_letters = prompt.str.count_matches(_HANGUL) + prompt.str.count_matches(_LATIN)
    hangul = _share(answer.str.count_matches(_HANGUL), letters)
    asked_hangul = _share(prompt.str.count_matches(_HANGUL), asked_letters)
    weight = chars + answer.str.count_matches(_HANGUL)
    # Distinct-1 falls with length by itself (Heaps' law): V ~ N^0.75 is what running text has at least.
    expected = words.list.len().cast(pl.Float64).pow(0.75)
    # The first characters are enough: what repeats later on, compression sees.
    distinct_chars = answer.str.head(200).str.extract_all(".").list.n_unique() / pl.min_horizontal(chars, pl.lit(12))
    runs = answer.str.count_matches(r"ㅋ{4,}|ㅎ{4,}|ㅠ{4,}|!{4,}|\?{4,}|\.{6,}|~{4,}")
    compressed = ((pl.col("compression") - 0.08) / 0.25).clip(0.0, 1.0).fill_null(1.0)
    copied = (chars >= 10) & prompt.str.contains(answer, literal=True)
    equal = answer.str.strip_chars() == prompt.str.strip_chars()
    other_script = (
        (asked_letters >= 10)
        & (letters >= 10)
        & ((asked_hangul - hangul).abs() > 0.7)
        & ~prompt.str.contains(_ASKS_FOR_LANGUAGE)
    )
    broken = answer.str.count_matches("\ufffd|[\x01-\x08\x0b\x0c\x0e-\x1f]")
    jamo = answer.str.count_matches("[ㄱ-ㅎㅏ-ㅣ]")
    unbalanced = sum(
        (answer.str.count_matches(a, literal=True) != answer.str.count_matches(b, literal=True)).cast(pl.Float64)
        for a, b in (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"))
    )
    tidy = 1.0 - _share(4.0 * jamo, chars) - _share(20.0 * broken, chars) - 0.1 * unbalanced
    parts = table.select(
        "row_id",
        (weight / (weight + 8.0) * 1.5).clip(0.3, 1.0).alias("length"),
        pl.min_horizontal(words.list.n_unique() / expected, distinct_chars).clip(0.0, 1.0).alias("diversity"),
        (compressed - 0.15 * runs).clip(0.0, 1.0).alias("repetition"),
        pl.when(equal).then(0.0).when(copied).then(0.2).otherwise(1.0).alias("originality"),
        pl.when(other_script).then(0.2).otherwise(1.0).alias("language"),
        pl.when(answer.str.contains(r"[\pL\pN]")).then(tidy.clip(0.0, 1.0)).otherwise(0.0).alias("form"),
        chars.cast(pl.Int64).alias("answer_chars"),
    )
    lowest, mean = pl.min_horizontal(*PARTS), pl.mean_horizontal(*PARTS)
    score = (lowest + 0.2 * (mean - lowest)).clip(0.0, 1.0).round(4).alias("score")
    return parts.with_columns(score).select(list(SCORES)).cast(SCORES)


class ToxicityScorer(Protocol):
    """Judges texts: for each the groups that it offends, empty where it offends none."""

    def groups(self, values: pl.Series) -> pl.Series:
        """A list of group names a text, in the order given."""
        ...


class Lexicon:
    """Flags texts with a word of the list. Sure of what it flags, blind to what is said politely."""

    def __init__(self, words: dict[str, Iterable[str]] | None = None) -> None:
        self._expressions = {
            group: re.compile("|".join(stems), re.IGNORECASE) for group, stems in (words or toxic_stems()).items()
        }
        # polars' engine has no look-around: it finds the stem, and Python judges what follows it.
        self._any = "(?i)" + "|".join(superset(expression.pattern) for expression in self._expressions.values())

    def groups(self, values: pl.Series) -> pl.Series:
        """The groups offended by each text."""
        found: list[list[str]] = [[] for _ in range(len(values))]
        for number in values.str.contains(self._any).fill_null(False).arg_true():
            text = values[number]
            found[number] = [group for group, expression in self._expressions.items() if expression.search(text)]
        return pl.Series("groups", found, dtype=pl.List(pl.String))
