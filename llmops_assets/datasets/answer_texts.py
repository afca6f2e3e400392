"""Judges whether answers are texts as somebody wrote them, and not what a tool made of them on the way."""

import re
from collections.abc import Iterable

import polars as pl

from llmops_assets.datasets import answer_forms, texts
from llmops_assets.datasets.coverage import FEWEST_ROWS, SHOWN
from llmops_assets.verdict import Verdict

ECHOED = ("sft_pair", "eval_suite", "rag_qa")
"""Types whose question and answer are two texts; of an answer that is the question nothing is learned."""
MOST_ECHOED = 0.9
"""Share of rows whose answer may be their question: of corrections a good half is, where nothing was wrong."""
_MISSING = ("nan", "<na>", "nat", "#n/a", "#ref!", "#value!", "#name?", "#null!", "undefined", "[object object]",
            "\\n")  # fmt: skip
"""What tools write where there was no value. None of them is a word."""
_MISSING_WORDS = ("None", "null", "NULL", "N/A", "NA")
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
_DOTS = r"\s*(?:\.{2,}|…|\[(?:\.{3}|…)\])$"
"""What some tools write where they cut."""
_LEAST_BEGUN = 10
"""Characters of a question below which an answer may well begin with the same ones."""
_ENDS = ".!?。？！…\"'”’)]}>`*|~:;"


def of_rows(batches: Iterable[pl.DataFrame], dataset_type: str) -> pl.DataFrame:
    """What is known of the answers of rows (`described`), batch by batch: the texts themselves are not held."""
    answer = texts.answer_of(dataset_type).fill_null("").str.strip_chars()
    echo = begun = pl.lit(False)
    if dataset_type in ECHOED:
        prompt = texts.prompt_of(dataset_type).fill_null("").str.strip_chars()
        echo = (prompt == answer) & (prompt != "")
        begun = answer.str.starts_with(prompt) & ~echo & (prompt.str.len_chars() >= _LEAST_BEGUN)
    columns = answer.alias("answer"), echo.alias("echo"), begun.alias("begun")
    frames = [described(batch.select(columns)) for batch in batches]
    nothing = pl.DataFrame(schema={"answer": pl.String, "echo": pl.Boolean, "begun": pl.Boolean})
    return pl.concat(frames) if frames else described(nothing)


def described(rows: pl.DataFrame) -> pl.DataFrame:
    """Of rows with an `answer` (trimmed), `echo` (whether it is the question word for word) and `begun` (whether it
    goes on behind it) what must be known of each different answer: a hash of it, how many rows have it (`len`) and how
    many of them echo, whether all of them go on, its length and last letter, what it looks like, and of those that may
    be quoted the text, shortened (`shown`)."""
    counted = rows.group_by("answer").agg(pl.len(), pl.col("echo").sum(), pl.col("begun").all())
    answer = pl.col("answer")
    counted = counted.with_columns(
        answer.hash(1).alias("hash"),
        answer.str.len_chars().alias("length"),
        answer.str.contains(r"\s").alias("spaced"),
        answer.str.replace(_DOTS, "").str.slice(-1).alias("end"),
        answer.str.to_lowercase().is_in(_MISSING).alias("missing"),
        answer.is_in(_MISSING_WORDS).alias("word"),
        _misread(counted["answer"]).alias("misread"),
        **answer_forms.marks(answer),
    )
    long = pl.col("spaced") & (pl.col("length") >= _LONGEST)
    # Of those that were cut none is shorter than the longest of its batch.
    longest = long & (pl.col("length") == pl.col("length").filter(long).max())
    quoted = pl.any_horizontal("missing", "word", "misread", longest.fill_null(False), answer_forms.quoted())
    shortened = (
        pl.when(pl.col("length") <= SHOWN)
        .then(answer)
        .otherwise(pl.concat_str(answer.str.slice(0, SHOWN // 2), pl.lit("…"), answer.str.slice(-(SHOWN // 2))))
    )
    return counted.select(
        "hash", "len", "echo", "begun", "length", "spaced", "end", "missing", "word", "misread", *answer_forms.MARKS,
        pl.when(quoted).then(shortened).alias("shown"),
    )  # fmt: skip


def answers_readable(rows: pl.DataFrame, allowed: float) -> Verdict:
    """Whether no more than the share `allowed` of the answers (`described`) are no text that somebody wrote.

    That is: what a tool writes for a missing value; letters of another encoding (UTF-8 or EUC-KR that was read as
    Latin-1 or Windows-1252), or none but question marks and U+FFFD; text that an export cut at one length; and what
    `answer_forms` knows. An answer that is the question word for word is one too, where hardly any is another.
    """
    total = int(rows["len"].sum())
    if total < FEWEST_ROWS:
        return Verdict(True, f"{total} rows are too few to tell.")
    others = [name for name in rows.columns if name not in ("hash", "len", "echo", "begun", "shown")]
    counted = rows.group_by("hash").agg(
        pl.col("len", "echo").sum(), pl.col("begun").all(), *(pl.col(name).first() for name in others),
        pl.col("shown").drop_nulls().first(),
    )  # fmt: skip
    missing = pl.col("missing") | pl.col("word") if counted.height > _MANY_ANSWERS else pl.col("missing")
    kinds = {
        "stand for a missing value": counted.filter(missing),
        "are in the letters of another encoding": counted.filter("misread"),
        "are cut at one length": _cut(counted),
    }
    figures = {name: int(found["len"].sum()) for name, found in kinds.items()}
    echoed = int(counted["echo"].sum())
    figures["are the question itself"] = echoed
    faults = [
        f"{figures[name]:,} of {total:,} answers {name} ({_example(found)})"
        for name, found in kinds.items()
        if figures[name] > allowed * total
    ]
    for name, (found, share) in answer_forms.of_programs(counted).items():
        if (number := int(found["len"].sum())) > max(share, allowed) * total:
            faults.append(f"{number:,} of {total:,} answers {name} ({_example(found)})")
    if (begun := int(counted.filter("begun")["len"].sum())) > max(MOST_ECHOED, allowed) * total:
        faults.append(f"{begun:,} of {total:,} answers begin with their question, word for word")
    if echoed > MOST_ECHOED * total:
        faults.append(f"{echoed:,} of {total:,} answers are the question itself, word for word")
    if not faults:
        return Verdict(True, f"{total:,} answers are texts that somebody wrote.", figures)
    return Verdict(
        False,
        f"{'; '.join(faults)}; {allowed:.0%} are allowed. The model would learn to say so. Look at how the file was "
        "written (missing values, encoding, the width of a column) and at the mapping of its columns, correct it and "
        "register it again, or allow more in the policy (datasets.max_unreadable_answer_share)",
        figures,
    )


def _example(found: pl.DataFrame) -> str:
    """The text that most rows have, its beginning and its end: the end of a cut answer is what shows that it is one."""
    return repr(found.sort(["len", "shown"], descending=[True, False])["shown"][0])


def _misread(answers: pl.Series) -> pl.Series:
    """Which of the texts are in letters of another encoding, or none but question marks."""
    lost = answers.str.contains("\ufffd", literal=True)
    bytes_in_two = answers.str.contains(answer_forms.TWO_BYTES)
    suspect = (lost | bytes_in_two | answers.str.contains(_SUSPECT) | answers.str.contains(r"\?\?")).arg_true()
    judged = [
        _lost(text) or _only_marks(text) or misread(text) or answer_forms.of_other_bytes(text)
        for text in answers.gather(suspect)
    ]
    found = pl.repeat(False, len(answers), eager=True, dtype=pl.Boolean)
    return found.scatter(suspect, judged) if judged else found


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
    texts_of = counted.filter("spaced")
    sizes = texts_of.filter(pl.col("length") >= _LONGEST).group_by("length").len("texts").sort("texts", "length")
    if not sizes.height:
        return counted.clear()
    at, many = sizes["length"][-1], sizes["texts"][-1]
    found = texts_of.filter(pl.col("length") == at)
    longer = texts_of.filter(pl.col("length") > at).height
    # Those with a space at the cut have a letter less.
    nearly = texts_of.filter(pl.col("length") == at - 2).height
    endless = found.filter(~pl.col("end").is_in(list(_ENDS)))
    ends = endless["end"].n_unique()
    is_cut = (
        many >= max(_CUT_ANSWERS, _CUT_SHARE * counted.height, _SPIKE * nearly)
        and longer <= many / 2
        and endless.height > found.height / 2
        and ends >= _CUT_ANSWERS / 2
    )
    return found if is_cut else found.clear()
