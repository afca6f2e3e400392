"""An endpoint that tells its model something else than its training did is named, with both texts."""

import polars as pl
import pytest

from llmops_assets.records.prompts import ResolvedPrompt, Template
from llmops_assets.serving.instructions import LOOKED_AT, Instructions, as_trained, of_rows

DESK = "고속도로 안내 창구입니다. 짧게 답하세요."


def rows(*systems: str | None) -> pl.DataFrame:
    asked = {"role": "user", "content": "환불은요?"}
    return pl.DataFrame(
        {"messages": [[{"role": "system", "content": one}, asked] if one is not None else [asked] for one in systems]}
    )


def prompt(template: Template) -> ResolvedPrompt:
    return ResolvedPrompt("desk", 3, template, "production")


def test_what_training_rows_begin_with_is_counted_by_its_text() -> None:
    batches = [rows(DESK, f" {DESK}\n", None), rows("다른 창구입니다.")]
    assert of_rows(batches, "sft_pair") == Instructions(4, 3, DESK, 2)
    assert of_rows([rows(None, None)], "sft_pair") == Instructions(2)
    assert of_rows([], "sft_pair") == Instructions(0)
    of_pairs = rows(DESK).rename({"messages": "prompt"})
    assert of_rows([of_pairs], "rlhf_pair") == of_rows([of_pairs], "kto") == Instructions(1, 1, DESK, 1)


def test_no_more_rows_are_read_than_it_takes() -> None:
    many = rows(*[DESK] * LOOKED_AT)

    def batches():
        yield many
        raise AssertionError("read on")

    assert of_rows(batches(), "sft_pair").rows == LOOKED_AT


@pytest.mark.parametrize(
    ("trained", "template", "words"),
    [
        (Instructions(100, 100, DESK, 98), None, "puts nothing before what users write"),
        (Instructions(100, 100, DESK, 98), "다른 창구입니다.", "desk@3 begins with «다른 창구입니다.»"),
        (Instructions(100, 100, DESK, 98), [{"role": "user", "content": DESK}], "puts nothing before"),
        (Instructions(100, 0), DESK, "0 of 100 training rows have a system message, but the endpoint's prompt desk@3 "),
        (Instructions(100, 9, DESK, 1), DESK, "nobody evaluated the model so"),
    ],
)
def test_another_instruction_than_the_trainings_is_named(
    trained: Instructions, template: Template | None, words: str
) -> None:
    found = as_trained(trained, None if template is None else prompt(template))
    assert not found.passed and words in found.text


@pytest.mark.parametrize(
    ("trained", "template"),
    [
        (Instructions(100, 100, DESK, 98), f"{DESK}\n"),
        (Instructions(100, 100, DESK, 98), "{{ desk }} 안내 창구입니다. {{how}} 답하세요."),
        (Instructions(100, 100, DESK, 98), [{"role": "system", "content": DESK}, {"role": "user", "content": "예"}]),
        (Instructions(100, 0), None),
        # Rows of many kinds: which of them an endpoint is for nobody can tell.
        (Instructions(100, 100, DESK, 40), None),
        (Instructions(100, 50, DESK, 50), DESK),
        (Instructions(0), None),
    ],
)
def test_the_same_instruction_or_none_that_all_rows_share_is_left_alone(
    trained: Instructions, template: Template | None
) -> None:
    assert as_trained(trained, None if template is None else prompt(template)).passed
