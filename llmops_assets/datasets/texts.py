"""What of a row counts as its text: the prompt, the answer, the whole; the same for every judgement made of it."""

import numpy as np
import polars as pl
import pyarrow as pa

from llmops_assets.datasets import schema
from llmops_assets.records.conversation import TOOLS


def spoken(message: pl.Expr) -> pl.Expr:
    """All that a message says: its text, after what was thought and before the calls that it makes."""
    thought, text, calls = (message.struct.field(name) for name in ("reasoning_content", "content", "tool_calls"))
    whole = pl.concat_str([thought, pl.when(text != "").then(text), calls], separator="\n", ignore_nulls=True)
    return pl.when(thought.is_null() & calls.is_null()).then(text).otherwise(whole)


def _joined(messages: pl.Expr) -> pl.Expr:
    return messages.list.eval(spoken(pl.element())).list.join("\n")


def without_system(messages: pl.Expr) -> pl.Expr:
    """The turns of a conversation but those of the system, which many rows share; all of them where no other is."""
    others = messages.list.eval(pl.element().filter(pl.element().struct.field("role") != "system"))
    return pl.when(others.list.len() > 0).then(others).otherwise(messages)


def prompt_of(dataset_type: str) -> pl.Expr:
    """What the model is given: all turns but the last, the question, the anchor. Null for a plain corpus."""
    if dataset_type in ("sft_pair", "eval_suite"):
        return _joined(pl.col("messages").list.head(pl.col("messages").list.len() - 1)).alias("prompt")
    if dataset_type in ("rlhf_pair", "kto"):
        return _joined(pl.col("prompt")).alias("prompt")
    if dataset_type == "rag_qa":
        return pl.col("question").alias("prompt")
    if dataset_type == "embedding_pair":
        return pl.col("anchor").alias("prompt")
    return pl.lit(None, pl.String).alias("prompt")


def answer_of(dataset_type: str) -> pl.Expr:
    """What the model is to say: the last turn, the preferred answer, the positive text, or the whole document."""
    if dataset_type in ("sft_pair", "eval_suite"):
        return spoken(pl.col("messages").list.last()).alias("answer")
    if dataset_type == "rlhf_pair":
        return _joined(pl.col("chosen")).alias("answer")
    if dataset_type == "kto":
        return _joined(pl.col("completion")).alias("answer")
    if dataset_type == "rag_qa":
        return pl.col("answer")
    if dataset_type == "embedding_pair":
        return pl.col("positives").list.join("\n").alias("answer")
    return pl.col("text").alias("answer")


def whole_of(dataset_type: str) -> pl.Expr:
    """All text of a row, a part a line."""
    parts = []
    for name, dtype in schema.CONTENT[dataset_type].items():
        if dtype == schema.MESSAGES:
            parts.append(_joined(pl.col(name)))
        elif dtype == schema.TEXTS:
            parts.append(pl.col(name).list.join("\n"))
        else:
            parts.append(pl.col(name))
    return pl.concat_str(parts, separator="\n", ignore_nulls=True).alias("whole")


def parts_of(dataset_type: str) -> list[pl.Expr]:
    """All text of a row in parts: the prompt (of types that have one), the answer, and what is left."""
    parts = [answer_of(dataset_type)]
    if has_prompt(dataset_type):
        parts.insert(0, prompt_of(dataset_type))
    if dataset_type == "rlhf_pair":
        parts.append(_joined(pl.col("rejected")).alias("rest"))
    elif dataset_type == "rag_qa":
        parts.append(pl.concat_list("positives", "negatives").list.join("\n").alias("rest"))
    elif dataset_type == "embedding_pair":
        parts.append(pl.col("negatives").list.join("\n").alias("rest"))
    return parts


def content_columns(dataset_type: str) -> list[str]:
    """The columns that hold a row's text."""
    return list(schema.CONTENT[dataset_type])


def has_prompt(dataset_type: str) -> bool:
    """Whether rows of a dataset type ask something, which plain text does not."""
    return dataset_type != "pretrain_corpus"


SPOKEN_BESIDE = ("name", "reasoning_content")
"""Fields of a message that hold free text beside its content; where they are, a column is ``messages.name``."""


def flat_texts(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """Every single text of the content: columns `row` (number), `column`, `part` (number inside the list), `text`.

    Calls and tools are JSON and not among them (see `calls.documents`).
    """
    frames = []
    for name, dtype in schema.CONTENT[dataset_type].items():
        if name == TOOLS:
            continue
        values = rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), pl.col(name).alias("text"))
        if dtype == pl.String:
            flat = values.with_columns(part=pl.lit(0, pl.UInt32))
        else:
            lengths = values["text"].list.len()
            flat = values.with_columns(part=pl.int_ranges(0, lengths, dtype=pl.UInt32)).explode("text", "part")
            flat = flat.filter(pl.col("part").is_not_null())
            if dtype == schema.MESSAGES:
                frames += _beside(flat, name)
                flat = flat.with_columns(pl.col("text").struct.field("content").alias("text"))
        frames.append(flat.select("row", pl.lit(name).alias("column"), "part", "text"))
    return pl.concat(frames)


def _beside(flat: pl.DataFrame, name: str) -> list[pl.DataFrame]:
    """The other texts of messages. What a tool is called is no text: its calls have to match it."""
    found = []
    for field in SPOKEN_BESIDE:
        text = pl.col("text").struct.field(field)
        some = text.is_not_null() & ((pl.col("text").struct.field("role") != "tool") | (field != "name"))
        part = flat.filter(some)
        if part.height:
            found.append(part.select("row", pl.lit(f"{name}.{field}").alias("column"), "part", text.alias("text")))
    return found


def with_texts(rows: pl.DataFrame, dataset_type: str, flat: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the content replaced by the texts of `flat`, which is `flat_texts` of them with other texts."""
    columns = []
    for name, dtype in schema.CONTENT[dataset_type].items():
        if name == TOOLS:
            continue
        mine = flat.filter(pl.col("column") == name).sort("row", "part")["text"]
        if dtype == pl.String:
            columns.append(mine.alias(name))
            continue
        values = mine.to_arrow()
        if dtype == schema.MESSAGES:
            values = _messages(rows, name, mine, flat).to_arrow()
        columns.append(nested(rows[name], values, dtype))
    return rows.with_columns(columns)


def _messages(rows: pl.DataFrame, name: str, contents: pl.Series, flat: pl.DataFrame) -> pl.Series:
    """All messages of a column, one after another, with other texts."""
    messages = rows.select(pl.col(name).list.explode(empty_as_null=False).alias("message"))["message"].struct.unnest()
    messages = messages.with_columns(contents.alias("content"))
    starts = (rows[name].list.len().cum_sum() - rows[name].list.len()).to_numpy()
    for field in SPOKEN_BESIDE:
        mine = flat.filter(pl.col("column") == f"{name}.{field}")
        if mine.height:
            places = starts[mine["row"].to_numpy()] + mine["part"].to_numpy()
            messages = messages.with_columns(messages[field].scatter(places, mine["text"]))
    return messages.to_struct("message")


def nested(before: pl.Series, values: pa.Array, dtype: pl.DataType) -> pl.Series:
    """A column of lists with the lengths of `before` and other values, which come one after another."""
    ends = np.concatenate(([0], np.cumsum(before.list.len().to_numpy()))).astype(np.int64)
    # `pa.array` would load pandas to ask whether it is given a part of one.
    offsets = pa.Array.from_buffers(pa.int64(), len(ends), [None, pa.py_buffer(ends)])
    return pl.Series(before.name, pa.LargeListArray.from_arrays(offsets, values), dtype=dtype)
