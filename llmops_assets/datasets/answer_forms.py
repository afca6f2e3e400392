"""Finds answers that still carry the form in which a program wrote them: escapes, quotes, labels, row numbers."""

import polars as pl

MOST_FORMED = 0.9
"""Share of answers that may be of one such form: a few of any set are; what is meant so the policy may allow."""
_SOME_FORMED = 0.1
"""The same of what an export writes in some answers only, those in which there was something to escape."""
_ESCAPE = r"\\u[0-9a-fA-F]{4}"
_HALF = 0.5
_ENTITY = r"&(?:amp|lt|gt|quot|nbsp|apos|#\d{2,5}|#x[0-9a-fA-F]{2,4});"
_MARKUP = r"[<>`]"
_SPEAKER = r"(?i)^\W*(?:assistant|chatbot|bot|ai|gpt(?:-\d\S*)?|human|user|### ?(?:response|assistant|answer))\W*[:：]"
_NUMBER = r"^\d{1,9}$"
_DENSE = 1.5
"""How far row numbers may lie apart on average: cleaning leaves gaps."""
_QUOTED = r"(?s)^\s*(?:\".*\"|“.*”|'.*')\s*$"
_LEAST_BYTES, _LEAST_DIFFERENT = 8, 5
"""Letters beyond ASCII, in all and different ones, below which a text may well be a list of accents."""
TWO_BYTES = r"[\u00a1-\u00ff]{2}"
"""What stands in every such text."""


MARKS = ("escaped", "broken", "entities", "in_quotes", "speaker", "number")
"""Columns that `marks` makes of an answer."""


def marks(answer: pl.Expr) -> dict[str, pl.Expr]:
    """What must be known of an answer to tell what a program wrote around it, by column.

    A half of one that is escaped is escapes: one in a piece of code is none. An answer about HTML shows what its
    escapes stand for, or quotes them. The two letters \\n count where no answer of a batch has an end of line: code and
    its strings have both.
    """
    return {
        "escaped": 6 * answer.str.count_matches(_ESCAPE) >= _HALF * answer.str.len_chars().clip(1),
        "broken": answer.str.contains("\\n", literal=True) & ~answer.str.contains("\n", literal=True).any(),
        "entities": answer.str.contains(_ENTITY) & ~answer.str.contains(_MARKUP),
        "in_quotes": answer.str.contains(_QUOTED),
        "speaker": answer.str.contains(_SPEAKER),
        "number": answer.str.contains(_NUMBER),
    }


def quoted() -> pl.Expr:
    """Whether an answer may be shown as an example."""
    return pl.any_horizontal("escaped", "broken", "entities", "in_quotes", "speaker", "number")


def of_programs(counted: pl.DataFrame) -> dict[str, tuple[pl.DataFrame, float]]:
    """What programs left in answers, by kind: the different answers that have it, and what share of all rows may."""
    return {
        "are written in escapes (\\uXXXX)": (counted.filter("escaped"), 0.0),
        "have \\n in place of every line's end": (counted.filter("broken"), _SOME_FORMED),
        "hold HTML's escapes (&quot;, &#39;) and no HTML": (counted.filter("entities"), _SOME_FORMED),
        "stand in quotes": (counted.filter("in_quotes"), MOST_FORMED),
        "begin with the name of a speaker": (counted.filter("speaker"), MOST_FORMED),
        "are the numbers of their rows": (_numbered(counted), MOST_FORMED),
    }


def _numbered(counted: pl.DataFrame) -> pl.DataFrame:
    """Whole numbers, where each is another one and they lie close together."""
    numbers = counted.filter(pl.col("number") & (pl.col("len") == 1))
    rows = int(counted["len"].sum())
    if numbers.height <= MOST_FORMED * rows:
        return counted.clear()
    # So short a text is shown as it is.
    values = numbers["shown"].cast(pl.Int64).to_numpy()
    return numbers if values.max() - values.min() < _DENSE * rows else counted.clear()


def of_other_bytes(text: str) -> bool:
    """Whether a text is of two-byte letters (EUC-KR, GBK, Shift-JIS, Big5) that somebody read as Latin-1 or
    Windows-1252: such bytes throughout. No language has more accents than letters."""
    letters = [letter for letter in text if not letter.isspace()]
    high = [letter for letter in letters if ord(letter) >= 0x80]
    if len(high) < _LEAST_BYTES or len(set(high)) < _LEAST_DIFFERENT or len(high) < _HALF * len(letters):
        return False
    for read_as in ("latin-1", "cp1252"):
        for written_as in ("cp949", "gbk", "shift_jis", "big5"):
            try:
                text.encode(read_as).decode(written_as)
            except UnicodeError:
                continue
            return True
    return False
