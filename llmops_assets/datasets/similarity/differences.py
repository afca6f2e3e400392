"""Whether two texts that are alike say the same: what differs is a slip of the pen, or a fact."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from llmops_assets.datasets.similarity import word_diff
from llmops_assets.datasets.similarity.shared_text import Counts
from llmops_assets.datasets.similarity.sketch import Buffers, buffers
from llmops_assets.privacy.surnames import SURNAMES

NUMBER, NEGATION, OPPOSITE, SIGN, NAME, WORD, ADDED, CASE = (
    "another number", "a negation", "an opposite", "another sign", "another name", "another word", "words added",
    "another case",
)  # fmt: skip

SCATTERED = 3
"""Slips from which a text is a noisy copy: two slips may then have fallen on one word."""

_SHORT, _GARBLED, _STRETCH = 4, 20, 40
"""Letters of an answer that one slip makes another one, of a few words that several may have fallen on, and of a
stretch that is no single fact."""

ADDED_SHARE = 0.2
"""Letters that an answer or document may have more than the other, of all its letters."""

_LETTERS = r"[^\p{L}\p{N}]"
_SIGNS = r"[+=<>%$€£₩|\\]|[a-z]#|[-*/^]\s*\d|\d\s*[-*/^]|\p{So}"
_NUMBER = r"\d+(?:[.:]\d+)*"
_NEGATION = (
    r"(?:^|\s)(?:안|못)(?:\s|$)|않|없|아니|아닌|아닙|아냐|[가-힣]지\s?(?:마[세십라시요]|말[아고라])|금지|"
    r"(?:^|\s)불가|불가능|못하|못한|못합|"
    r"\b(?:no|not|never|without|cannot|none|neither|nor|nothing|nobody)\b|n['’]t\b"
)
_NUMERALS = r"[일이삼사오육칠팔구십백천만억조]{2,}|(?:이|삼|사|오|육|칠|팔|구)?십|백|천|만|억"

_WORDS = yaml.safe_load(Path(__file__).with_name("differences.yaml").read_text(encoding="utf-8"))
_PREFIXES = _WORDS["negating_prefixes"].split()
_TITLES = "|".join(
    # One syllable is a title only where the word ends after it, or goes on with a particle.
    title if len(title) > 1 else rf"{title}(?:은|는|이|가|의|을|를|께|과|와|도|에게|께서)?(?:[^가-힣]|$)"
    for title in _WORDS["titles"].split()
)
FILLERS = ["", *_WORDS["fillers"].split()]


def _opposites() -> str:
    """The words that have opposites as one regular expression: the beginning of a Korean word, which has an ending, and
    an English word."""
    beginnings = {word for line in _WORDS["opposites"] for word in line.split()}
    words = {word for word in beginnings if word.isascii()}
    words |= {word for line in _WORDS["opposite_words"] for word in line.split()}
    parts = [
        rf"{word}(?:\s|$)" if word in words else word for word in sorted(beginnings | words, key=len, reverse=True)
    ]
    return rf"(?:^|\s)(?:{'|'.join(parts)})"


_OPPOSITE = _opposites()


def _joined(text: pl.Expr, pattern: str) -> pl.Expr:
    return text.str.extract_all(pattern).list.join("|")


def _numbers(text: pl.Expr) -> pl.Expr:
    return _joined(text.str.replace_all(r"(\d),(\d{3})", "$1$2").str.replace_all(r"(\d),(\d{3})", "$1$2"), _NUMBER)


def regions(texts: Buffers, pairs: np.ndarray, counts: Counts | None = None) -> pl.DataFrame:
    """The stretches in which the texts of each pair differ, each with what sort of difference it is (`sort`): null for
    spaces and punctuation, ``slip``, or one of the constants of this module.

    A word that a slip makes of another is none of the dataset's words: where both are (`counts`), it is another word.
    Columns: pair, at, one, other, next, sort, letters (of the longer), and the two without punctuation: a, b.
    """
    found = word_diff.regions(texts, pairs)
    one, other = pl.col("one"), pl.col("other")
    found = found.with_columns(
        one.str.replace_all(_LETTERS, "").alias("a"), other.str.replace_all(_LETTERS, "").alias("b")
    )
    distance, letters = word_diff.distances(buffers(found["a"]), buffers(found["b"]))
    found = found.with_columns(pl.Series("distance", distance), pl.Series("letters", letters))
    a, b = pl.col("a"), pl.col("b")
    numbers = _numbers(one) != _numbers(other)
    prefixed = pl.any_horizontal(
        *(
            # A syllable that is typed twice denies nothing.
            (a == prefix + b) & ~b.str.starts_with(prefix) | (b == prefix + a) & ~a.str.starts_with(prefix)
            for prefix in _PREFIXES
        )
    )
    negation = one.str.count_matches(_NEGATION) != other.str.count_matches(_NEGATION)
    negation = negation | (prefixed & (a != "") & (b != ""))
    opposites = [text.str.extract_all(_OPPOSITE).list.eval(pl.element().str.strip_chars()) for text in (one, other)]
    numerals = [_joined(text, rf"(?:^|\s)(?:{_NUMERALS})") for text in (one, other)]
    other_numerals = (numerals[0] != numerals[1]) & (numerals[0] != "") & (numerals[1] != "")
    opposite = (opposites[0].list.set_difference(opposites[1]).list.len() > 0) & (
        opposites[1].list.set_difference(opposites[0]).list.len() > 0
    )
    signs = [_joined(text, _SIGNS) for text in (one, other)]
    sign = (signs[0] != signs[1]) & (
        (signs[0] != "") & (signs[1] != "") | pl.concat_str(signs).str.contains(r"[+=<>%$€£₩|\\#]|\d")
    )
    titled = rf"(?:{_TITLES})"
    person = rf"^[{SURNAMES}][가-힣]{{1,3}}"
    name = (
        a.str.contains(person)
        & b.str.contains(person)
        & (pl.col("next").str.contains(rf"^{titled}") | a.str.contains(rf"{person}{titled}") & b.str.contains(titled))
    )
    n, d = pl.col("letters"), pl.col("distance")
    words = pl.max_horizontal(one.str.count_matches(r"\S+"), other.str.count_matches(r"\S+")).cast(pl.Int32)
    slip = (d <= pl.max_horizontal(words, pl.min_horizontal(n // 5, 2))) & (d < n)
    added = (a == "") | (b == "")
    if counts is not None:
        slip = slip & ~pl.Series(counts.both_known(found["one"], found["other"]))
    return found.with_columns(
        pl.when((a != b) & (a.str.to_lowercase() == b.str.to_lowercase()))
        .then(pl.lit(CASE))
        .when(sign)
        .then(pl.lit(SIGN))
        .when(numbers | other_numerals)
        .then(pl.lit(NUMBER))
        .when(a == b)
        .then(None)
        .when(negation)
        .then(pl.lit(NEGATION))
        .when(opposite)
        .then(pl.lit(OPPOSITE))
        .when(name)
        .then(pl.lit(NAME))
        .when(added)
        .then(pl.when(pl.concat_str(a, b).is_in(FILLERS)).then(None).otherwise(pl.lit(ADDED)))
        .when(slip)
        .then(pl.lit("slip"))
        .otherwise(pl.lit(WORD))
        .alias("sort")
    )


def _with_replaced_names(table: pl.DataFrame) -> pl.DataFrame:
    """`table` with slips that replace the same letters in several places of a pair as other words.

    A pen slips once, and a name (대구, 대전) stands wherever it is spoken of; syllables that begin alike (되, 돼) may
    be misspelt twice.
    """
    slips = table.with_row_index("row").filter(pl.col("sort") == "slip").filter(pl.len().over("pair") > 1)
    if not slips.height:
        return table
    replaced = {(a, b): _replaced(a, b) for a, b in slips.select("a", "b").unique().iter_rows()}
    cores = pl.Series("core", [replaced[pair] for pair in slips.select("a", "b").iter_rows()], dtype=pl.String)
    slips = slips.with_columns(cores).filter(pl.col("core").is_not_null())
    several = slips.filter(pl.len().over("pair", "core") > 1)
    if not several.height:
        return table
    return table.with_columns(table["sort"].scatter(several["row"], WORD))


def _replaced(a: str, b: str) -> str | None:
    """The Hangul letters of `a` that stand in place of others in `b`; None where none do, or the first sound alike."""
    start, shorter = 0, min(len(a), len(b))
    while start < shorter and a[start] == b[start]:
        start += 1
    end = 0
    while end < shorter - start and a[-1 - end] == b[-1 - end]:
        end += 1
    one, other = a[start : len(a) - end], b[start : len(b) - end]
    if not (one and other and _HANGUL.fullmatch(one) and _HANGUL.fullmatch(other)):
        return None
    initials = [(ord(text[0]) - _FIRST_SYLLABLE) // _SYLLABLES_OF_AN_INITIAL for text in (one, other)]
    return None if initials[0] == initials[1] else f"{one}/{other}"


_HANGUL = re.compile(r"[가-힣]+")
_FIRST_SYLLABLE, _SYLLABLES_OF_AN_INITIAL = 0xAC00, 588


def compare(
    texts: Buffers,
    pairs: np.ndarray,
    counts: Counts | None = None,
    *,
    answers: np.ndarray | None,
    letters: np.ndarray,
    facts: bool = True,
) -> pl.DataFrame:
    """Of each pair of texts that are alike whether they say the same: `same`, and `why` not (the sort of the first
    difference that counts).

    `answers` is the byte of each text where its answer begins (none of documents), `letters` how many letters each
    answer, or document, has. Words that are added to a question ask another; an answer or a document may have a little
    more. In a text with slips in many places a word that is wholly another one is a slip as well. Where `facts` do not
    count, only whole stretches of other text do.
    """
    table = regions(texts, pairs, counts)
    if answers is None:
        # An attachment or a page that one copy of a document counts says nothing else; it says more.
        beside = (pl.col("sort") == NUMBER) & ((pl.col("a") == "") | (pl.col("b") == ""))
        table = table.with_columns(sort=pl.when(beside).then(pl.lit(ADDED)).otherwise("sort"))
    table = _with_replaced_names(table)
    number = table["pair"].to_numpy()
    begin = np.zeros(len(pairs), dtype=np.int64) if answers is None else answers[pairs[:, 0]]
    size = np.maximum(letters[pairs].max(axis=1), 1) if len(pairs) else np.ones(0)
    table = table.with_columns(
        asked=pl.col("at") < pl.Series(begin[number]), size=pl.Series(size[number]),
        slips=(pl.col("sort") == "slip").sum().over("pair"),
        others=(pl.col("sort") == WORD).sum().over("pair"),
        more=pl.col("letters").filter(pl.col("sort") == ADDED).sum().over("pair"),
    )  # fmt: skip
    sort, asked = pl.col("sort"), pl.col("asked")
    if not facts:
        apart = table.filter((sort == WORD) & (pl.col("letters") > _STRETCH))
    else:
        half = (pl.col("distance") == 2) & (pl.col("slips") >= pl.when(pl.col("letters") >= 3).then(1).otherwise(2))
        noise = (sort == WORD) & (pl.col("others") <= pl.col("slips"))
        noise = noise & ((pl.col("slips") >= SCATTERED) & (pl.col("letters") <= _GARBLED) | half)
        few = (sort == ADDED) & ~asked & (pl.col("more") <= ADDED_SHARE * pl.col("size"))
        all_of_it = (sort == "slip") & ~asked & (pl.col("size") <= _SHORT)
        apart = table.filter(sort.is_not_null() & ((sort != "slip") & ~noise & ~few | all_of_it))
    why = apart.group_by("pair", maintain_order=True).agg(pl.col("sort").first().replace("slip", WORD).alias("why"))
    return (
        pl.DataFrame({"pair": np.arange(len(pairs))})
        .join(why, on="pair", how="left", maintain_order="left")
        .select(same=pl.col("why").is_null(), why=pl.col("why"))
    )
