"""A question of the test that stands in the training rows is found as a turn, and however its words are spaced."""

import unicodedata
from collections.abc import Iterator

import polars as pl
import pytest

from llmops_assets.datasets import schema
from llmops_assets.datasets.similarity.contamination import Suite, overlap
from llmops_assets.datasets.split import leaked_turns

QUESTION = "고속도로 통행료는 어디에서 내나요 알려 주세요"
OTHER = "단말기를 잃어버렸는데 어떻게 하면 되나요"


def table(*conversations: list[str]) -> pl.DataFrame:
    """Rows of turns, the user's first, as the store has them."""
    messages = [
        [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
        for turns in conversations
    ]
    rows = pl.DataFrame({"row_id": [f"r{n}" for n in range(len(messages))], "messages": messages})
    empty = [pl.lit(None, pl.String).alias(name) for name in ("tools", "file")]
    fields = {field.name for field in schema.MESSAGES.inner.fields}
    lacking = fields - {"role", "content"}
    whole = pl.element().struct.with_fields(**{name: pl.lit(None) for name in lacking})
    named = pl.struct([whole.struct.field(field.name) for field in schema.MESSAGES.inner.fields])
    filled = rows.with_columns(pl.col("messages").list.eval(named).cast(schema.MESSAGES), *empty, line=pl.lit(1))
    return filled


def batches(rows: pl.DataFrame):
    def read(columns: list[str] | None) -> Iterator[pl.DataFrame]:
        return iter([rows.select(columns) if columns else rows])

    return read


def leaked(*conversations: list[str], split: list[str]) -> list[str]:
    return leaked_turns(batches(table(*conversations)), pl.Series(split), "sft_pair")


def test_a_held_out_row_that_is_a_turn_of_a_training_conversation_is_found() -> None:
    longer = [OTHER, "매장으로 오세요.", QUESTION, "요금소에서 냅니다."]
    assert leaked(longer, [QUESTION, "요금소에서 냅니다."], [OTHER, "다릅니다."], split=["train", "test", "test"]) == [
        "r1"
    ]


@pytest.mark.parametrize(
    ("longer", "split"),
    [
        ([OTHER, "네", QUESTION, "다른 답입니다."], ["train", "test"]),
        ([OTHER, "네", QUESTION, "요금소에서 냅니다."], ["test", "test"]),
        ([OTHER, "네", QUESTION, "요금소에서 냅니다."], ["train", "train"]),
        ([QUESTION, "요금소에서 냅니다."], ["train", "test"]),
    ],
)
def test_other_answers_other_splits_and_equal_prompts_are_no_leaked_turns(longer: list[str], split: list[str]) -> None:
    assert leaked(longer, [QUESTION, "요금소에서 냅니다."], split=split) == []


def test_greetings_that_many_conversations_begin_with_are_no_leaked_turns() -> None:
    hello = ["안녕하세요", "무엇을 도와 드릴까요?"]
    assert leaked([*hello, QUESTION, "요금소에서 냅니다."], hello, split=["train", "test"]) == []


@pytest.mark.parametrize(
    "asked",
    [
        QUESTION,
        QUESTION.replace(" ", ""),
        "\u200b".join(QUESTION),
        unicodedata.normalize("NFD", QUESTION),
        f"  {QUESTION.replace(' ', chr(0x3000))}?!",
        "고속 도로 통행료는 어디에서 내나요 알려주세요",
    ],
)
def test_an_item_is_found_however_it_is_spaced(asked: str) -> None:
    rows = table([OTHER, "네"], [QUESTION, "요금소에서 냅니다."])
    found = overlap(batches(rows), "sft_pair", [Suite("exam@v1", ["i1"], pl.Series([asked]))]).found
    assert found.select("item", "row_id").rows() == [("i1", "r1")]


def test_an_item_that_asks_something_else_is_not_found() -> None:
    rows = table([QUESTION, "요금소에서 냅니다."])
    asked = "고속도로 통행료는 어디에서 환불하나요 알려 주세요"
    assert not overlap(batches(rows), "sft_pair", [Suite("exam@v1", ["i1"], pl.Series([asked]))]).found.height
