"""How good a row is to learn from: one score from 0 to 1 with its parts, and words that hurt someone."""

import zlib

import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.datasets.quality.features import CHARS_WANTED, features

PARTS = ("length", "diversity", "repetition", "originality", "language", "form")
PART_MEANINGS = {
    "length": "the answer says something at all",
    "diversity": "distinct words, pairs of words and characters",
    "repetition": "it does not say the same again and again",
    "originality": "it is not the prompt again",
    "language": "it is in the language that was asked in",
    "form": "no broken characters, open brackets, doubled words",
}
MEASURES = ("distinct_1", "distinct_2", "compression")
SCORES = {
    "row_id": pl.String,
    "score": pl.Float64,
    **dict.fromkeys(PARTS, pl.Float64),
    **dict.fromkeys(MEASURES, pl.Float64),
    "answer_chars": pl.Int64,
}

_ASKS_FOR_LANGUAGE = r"(?i)영어|영문|영작|번역|translat|korean|hangul|한국어|english|일본어|중국어|코드|code|python"
_SHORTEST_COMPRESSED = 200
"""Characters below which compression says nothing: the header weighs more than the text."""
_LONGEST_WORD = 25
"""Hangul syllables without a space that may still be one word."""


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
    """One line a row: row_id, score, its parts, what they were measured by, and characters of the answer.

    Every part is between 0 (bad) and 1. The score is their weakest, drawn up a little by the mean of all: min + 0.2 ·
    (mean − min), so that one grave fault cannot hide behind five good parts.

    length: characters of the answer, 0.3 at one, 1 from 16 on (Hangul counts double: a syllable says more).
    diversity: distinct words and distinct pairs of words by all of them (distinct-1, distinct-2; Li et al., 2016),
    expected lower the longer the text (V ~ N^0.75 for words by Heaps' law, N^0.9 for pairs), and distinct characters:
    twelve are few for any sentence.
    repetition: 1 less the share of what repeats, by compression and by runs of one character.
    originality: the answer is not the prompt again, nor the prompt with a little behind it.
    language: prompt and answer are of one script, unless another was asked for.
    form: what of grammar shows without a model: replacement and control characters, jamo that form no syllable,
    brackets that do not close, a word right after itself, sentences without spaces, an end in the middle of one.
    """
    table = rows.select("row_id", texts.prompt_of(dataset_type), texts.answer_of(dataset_type))
    answered, asked = features(table["answer"]), features(table["prompt"])
    measured = pl.concat(
        [
            answered,
            asked.select(pl.all().name.prefix("asked_")),
            table,
            compression_ratio(table["answer"]).to_frame(),
        ],
        how="horizontal",
    )
    answer, prompt = pl.col("answer").fill_null(""), pl.col("prompt").fill_null("")
    chars, words = pl.col("chars"), pl.col("words").cast(pl.Float64)
    pairs = (words - 1).clip(0)
    hangul = _share(pl.col("hangul"), pl.col("hangul") + pl.col("latin"))
    asked_hangul = _share(pl.col("asked_hangul"), pl.col("asked_hangul") + pl.col("asked_latin"))
    weight = chars + pl.col("hangul")
    diversity = pl.min_horizontal(
        _share(pl.col("distinct_words"), words.pow(0.75)),
        _share(pl.col("distinct_pairs"), pairs.pow(0.9), 1.0),
        _share(pl.col("distinct_chars"), pl.min_horizontal(chars, pl.lit(CHARS_WANTED))),
    )
    compressed = ((pl.col("compression") - 0.08) / 0.25).clip(0.0, 1.0).fill_null(1.0)
    copied = (chars >= 10) & prompt.str.contains(answer, literal=True)
    repeated = (
        (pl.col("asked_chars") >= 20)
        & (pl.col("asked_chars") >= 0.8 * chars)
        & answer.str.contains(prompt, literal=True)
    )
    equal = answer.str.strip_chars() == prompt.str.strip_chars()
    other_script = (
        (pl.col("asked_hangul") + pl.col("asked_latin") >= 10)
        & (pl.col("hangul") + pl.col("latin") >= 10)
        & ((asked_hangul - hangul).abs() > 0.7)
        & ~prompt.str.contains(_ASKS_FOR_LANGUAGE)
    )
    tidy = (
        1.0
        - _share(4.0 * pl.col("jamo"), chars)
        - _share(20.0 * pl.col("broken"), chars)
        - _share(2.0 * pl.col("doubled_words"), words)
        - 0.1 * pl.col("unbalanced")
        - 0.2 * (pl.col("longest_unspaced") > _LONGEST_WORD).cast(pl.Float64)
        - 0.2 * pl.col("unfinished")
    )
    parts = measured.select(
        "row_id",
        (weight / (weight + 8.0) * 1.5).clip(0.3, 1.0).alias("length"),
        diversity.clip(0.0, 1.0).alias("diversity"),
        (compressed - 0.15 * pl.col("runs")).clip(0.0, 1.0).alias("repetition"),
        pl.when(equal).then(0.0).when(copied | repeated).then(0.2).otherwise(1.0).alias("originality"),
        pl.when(other_script).then(0.2).otherwise(1.0).alias("language"),
        pl.when(pl.col("letters") > 0).then(tidy.clip(0.0, 1.0)).otherwise(0.0).alias("form"),
        _share(pl.col("distinct_words"), words).alias("distinct_1"),
        _share(pl.col("distinct_pairs"), pairs, 1.0).alias("distinct_2"),
        "compression",
        chars.cast(pl.Int64).alias("answer_chars"),
    )
    lowest, mean = pl.min_horizontal(*PARTS), pl.mean_horizontal(*PARTS)
    score = (lowest + 0.2 * (mean - lowest)).clip(0.0, 1.0).round(4).alias("score")
    return parts.with_columns(score).select(list(SCORES)).cast(SCORES)


def _share(part: pl.Expr, whole: pl.Expr, of_nothing: float = 0.0) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole).otherwise(of_nothing)
