"""Faults that are stopped by the evaluation: nothing is registered."""

import pytest

from benchmarks.chain import chats, sft_spec
from benchmarks.installation import Installation
from tests.truth.conftest import Finished
from tests.truth.faults import SPLIT
from tests.truth.table import Row


@pytest.mark.fault("too-few-items")
def test_an_accuracy_on_too_few_items_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    assert not shared.ingest("few@v1", "sft_pair", chats(60, seed=3), split=SPLIT).failed
    row.assert_stopped(shared.train(sft_spec(finished.chain.base, "few@v1", max_steps=20, save_steps=20))[1])


@pytest.mark.fault("answers-cut-in-evaluation")
def test_answers_that_are_cut_before_they_are_right_are_stopped(
    shared: Installation, finished: Finished, row: Row
) -> None:
    spec = sft_spec(finished.chain.base)
    spec["evaluation"]["max_new_tokens"] = 3
    # The chain's own training: only what it is asked is another recipe.
    row.assert_stopped(shared.train(spec)[1])


@pytest.mark.fault("judge-laxer-than-the-gate")
def test_a_judge_that_is_laxer_than_the_gate_opens_it_for_nobody(
    shared: Installation, finished: Finished, row: Row
) -> None:
    spec = sft_spec(finished.chain.base)
    spec["evaluation"]["judge"] = "contains"
    row.assert_stopped(shared.train(spec)[1])
