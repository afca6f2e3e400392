"""Finds texts of the control tokens of common model families in rows: there they are text, and not meant as such."""

import re
from collections.abc import Iterator

import polars as pl

KIND = "control_token"
"""Of a finding: its type is the token that stands in the row."""

_PATTERN = (
    # ChatML, Llama 3, Phi, GPT-NeoX, gpt-oss and all others of that form; DeepSeek's has a full-width bar.
    r"<\|[A-Za-z0-9_ ▁/:-]{1,40}\|>|<｜[^｜<>]{1,40}｜>"
    # Llama 2 and Mistral.
    r"|</?s>|\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\]"
    # Gemma.
    r"|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|mask)>"
    # What a tool would have said, and BERT's.
    r"|</?tool_response>|\[(?:CLS|SEP|MASK|PAD|UNK)\]"
)
_TOKEN = re.compile(_PATTERN)


def found_in(texts: pl.Series) -> Iterator[tuple[int, str, int]]:
    """(row number, token, how often) for each control token that stands in a text."""
    for number in texts.str.contains(_PATTERN).fill_null(False).arg_true():
        tokens = _TOKEN.findall(texts[number])
        for token in dict.fromkeys(tokens):
            yield int(number), token, tokens.count(token)


def rows_by_token(findings: pl.DataFrame) -> dict[str, int]:
    """Rows by control token, of the findings of a report, the most frequent first."""
    of_kind = findings.filter(pl.col("kind") == KIND)
    return dict(of_kind.group_by("type").len().sort(["len", "type"], descending=[True, False]).iter_rows())


def dropped(findings: pl.DataFrame) -> pl.DataFrame:
    """row_id, reason and detail of the rows that hold control tokens, for a policy that drops them."""
    of_kind = findings.filter(pl.col("kind") == KIND)
    return of_kind.group_by("row_id", maintain_order=True).agg(
        pl.lit("control token").alias("reason"), pl.col("type").str.join(", ").alias("detail")
    )
