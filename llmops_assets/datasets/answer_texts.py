"""Judges whether answers are texts as somebody wrote them, and not what a tool made of them on the way."""

import re
from collections.abc import Iterable

import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.datasets.coverage import FEWEST_ROWS, SHOWN
from llmops_assets.verdict import Verdict

ECHOED = ("sft_pair", "eval_suite", "rag_qa")
"""Types whose question and answer are two texts; of an answer that is the question nothing is learned."""
MOST_ECHOED = 0.9
"""Share of rows whose answer may be their question: of corrections a good half is, where nothing was wrong."""
_MISSING = ("nan", "<na>", "nat", "#n/a", "#ref!", "#value!", "#name?", "#null!", "undefined", "[object object]")
"""What tools write where there was no value. None of them is a word."""
_MISSING_WORDS = ("None", "null", "NULL")
"""The same, which may be a label too; free text is told by its many different answers."""
_MANY_ANSWERS = 100
_SUSPECT = r"[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u2122]"
_QUESTION_MARKS = re.compile(r"[^\w]*\?{2,}[^\w]*")
_MOST_LOST = 0.02
"""Share of letters that may be U+FFFD: one of a long answer is lost where a stream was cut."""
_LONGEST = 50
"""Characters below which many answers may well be of one length."""
_CUT_SHARE = 0.05
_CUT_ANSWERS = 10
_SPIKE = 3
"""How many times as many answers have the length of a cut as have two letters less."""
_ENDS = ".!?。？！…\"'”’)]}>`*|~:;"


def of_rows(batches: Iterable[pl.DataFrame], dataset_type: str) -> pl.DataFrame:
    """What is known of rows: columns `answer` (trimmed) and `echo`, whether it is the question word for word."""
    answer = texts.answer_of(dataset_type).fill_null("").str.strip_chars().alias("answer")
    echo = pl.lit(False)
    if dataset_type in ECHOED:
        prompt = texts.prompt_of(dataset_type).fill_null("").str.strip_chars()
        echo = (prompt == texts.answer_of(dataset_type).fill_null("").str.strip_chars()) & (prompt != "")
    frames = [batch.select(answer, echo.alias("echo")) for batch in batches]
    return pl.concat(frames) if frames else pl.DataFrame(schema={"answer": pl.String, "echo": pl.Boolean})


def answers_readable(rows: pl.DataFrame, allowed: float) -> Verdict:
    """Whether no more than the share `allowed` of the answers (`of_rows`) are no text that somebody wrote.

    That is: what a tool writes for a missing value; letters of another encoding (UTF-8 that was read as Latin-1 or
    Windows-1252), or none but question marks and U+FFFD; text that an export cut at one length. An answer that is the
    question word for word is one too, where hardly any is another.
    """
    if rows.height < FEWEST_ROWS:
        return Verdict(True, f"{rows.height} rows are too few to tell.")
    counted = rows.group_by("answer").len()
    kinds = {
        "stand for a missing value": _missing(counted),
        "are in the letters of another encoding": _misread(counted),
        "are cut at one length": _cut(counted),
    }
    figures = {name: int(found["len"].sum()) for name, found in kinds.items()}
    echoed = int(rows["echo"].sum())
    figures["are the question itself"] = echoed
    faults = [
        f"{figures[name]:,} of {rows.height:,} answers {name} ({_example(found)})"
        for name, found in kinds.items()
        if figures[name] > allowed * rows.height
    ]
    if echoed > MOST_ECHOED * rows.height:
        faults.append(f"{echoed:,} of {rows.height:,} answers are the question itself, word for word")
    if not faults:
        return Verdict(True, f"{rows.height:,} answers are texts that somebody wrote.", figures)
    return Verdict(
        False,
        f"{'; '.join(faults)}; {allowed:.0%} are allowed. The model would learn to say so. Look at how the file was "
        "written (missing values, encoding, the width of a column) and at the mapping of its columns, correct it and "
        "register it again, or allow more in the policy (datasets.max_unreadable_answer_share)",
        figures,
    )


def _example(found: pl.DataFrame) -> str:
    text = found.sort(["len", "answer"], descending=[True, False])["answer"][0]
    # The end of a cut answer is what shows that it is one.
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}…{text[-SHOWN // 2 :]}")


def _missing(counted: pl.DataFrame) -> pl.DataFrame:
    words = _MISSING_WORDS if counted.height > _MANY_ANSWERS else ()
    return counted.filter(pl.col("answer").str.to_lowercase().is_in(_MISSING) | pl.col("answer").is_in(words))


def _misread(counted: pl.DataFrame) -> pl.DataFrame:
    lost = pl.col("answer").str.contains("\ufffd", literal=True)
    suspect = counted.filter(lost | pl.col("answer").str.contains(_SUSPECT) | pl.col("answer").str.contains(r"\?\?"))
    return suspect.filter(
        pl.col("answer").map_elements(lambda t: _lost(t) or _only_marks(t) or misread(t), return_dtype=pl.Boolean)
    )


def _lost(text: str) -> bool:
    return text.count("\ufffd") >= _MOST_LOST * len(text)


def _only_marks(text: str) -> bool:
    return len(text) > 2 and not re.search(r"\w", text) and _QUESTION_MARKS.fullmatch(text.replace(" ", "")) is not None


def misread(text: str) -> bool:
    """Whether a text is UTF-8 that somebody read as Latin-1 or Windows-1252: its letters are bytes that say another."""
    data = bytearray()
    for letter in text:
        if ord(letter) < 256:
            data.append(ord(letter))
            continue
        try:
            data += letter.encode("cp1252")
        except UnicodeEncodeError:
            return False
    try:
        said = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return said != text


def _cut(counted: pl.DataFrame) -> pl.DataFrame:
    """Different answers of one length that hardly any exceeds, of which many end in the middle of a word.

    A mask may have made some of them longer.
    """
    length = pl.col("answer").str.len_chars()
    texts_of = counted.filter(pl.col("answer").str.contains(r"\s")).with_columns(length=length)
    sizes = texts_of.filter(pl.col("length") >= _LONGEST).group_by("length").len("texts").sort("texts", "length")
    if not sizes.height:
        return counted.clear()
    at, many = sizes["length"][-1], sizes["texts"][-1]
    found = texts_of.filter(pl.col("length") == at).drop("length")
    longer = texts_of.filter(pl.col("length") > at).height
    # Those with a space at the cut have a letter less.
    nearly = texts_of.filter(pl.col("length") == at - 2).height
    endless = found.filter(~pl.col("answer").str.slice(-1).is_in(list(_ENDS)))
    ends = endless["answer"].str.slice(-1).n_unique()
    is_cut = (
        many >= max(_CUT_ANSWERS, _CUT_SHARE * counted.height, _SPIKE * nearly)
        and longer <= many / 2
        and endless.height > found.height / 2
        and ends >= _CUT_ANSWERS / 2
    )
    return found if is_cut else found.clear()
