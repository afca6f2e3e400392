"""What the demo shows of its model: a question that it knows, and one that it does not."""

from types import SimpleNamespace

import numpy as np

from llmops_assets.experiments.assignment import assign
from llmops_assets.experiments.decision import QUIET_SPLIT_P
from llmops_assets.experiments.inference import fixed_srm, sequential_srm
from llmops_assets.local.demo import SALT, Demo, Example, examples_of


def row(prompt: str, *, correct: bool | None, suite: str = "test") -> dict:
    return {"prompt": prompt, "expected": f"답: {prompt}", "correct": correct, "suite": suite}


def test_it_shows_one_of_the_test_split_that_was_right_and_a_free_one_that_was_wrong() -> None:
    known, unknown = examples_of(
        [
            row("짧다", correct=True, suite="free@v1"),
            row("시험에서 맞은 긴 질문", correct=True),
            row("시험에서 맞은 것", correct=True),
            row("[전화번호] 가림", correct=True),
            row("틀림", correct=False),
            row("자유롭게 쓴 질문", correct=False, suite="free@v1"),
            row("채점되지 않음", correct=None),
        ]
    )
    assert known == Example("시험에서 맞은 것", "답: 시험에서 맞은 것", True)
    assert unknown == Example("자유롭게 쓴 질문", "답: 자유롭게 쓴 질문", False)
    assert "rightly" in known.introduction and "wrongly" in unknown.introduction


def test_a_model_that_knows_all_has_nothing_wrong_to_show() -> None:
    assert [example.known for example in examples_of([row("맞음", correct=True)])] == [True]


def test_the_simulated_users_are_split_as_a_promotion_asks_at_every_look() -> None:
    shares = {1: (0.5, 0.5)}
    for users in range(400, 1101, 20):
        arms = np.array([assign(SALT, f"user-0-{number:06d}", [50, 50]) for number in range(users)])
        phases = np.ones(users, int)
        assert sequential_srm(arms, phases, shares) >= QUIET_SPLIT_P, users
        assert fixed_srm(arms, phases, shares) >= QUIET_SPLIT_P, users


def test_the_demo_ends_after_the_checks_of_the_last_switch():
    endpoint = SimpleNamespace(name="desk", state="live", routes=[{"model_ref": "desk-tuned@1"}], message="")
    catalog = SimpleNamespace(
        endpoint=lambda name: endpoint, intents=SimpleNamespace(newest=lambda kind, key: SimpleNamespace(is_open=False))
    )
    still = [True, True, False]
    watcher = SimpleNamespace(busy=lambda partition, asset: still.pop(0))
    demo = Demo(SimpleNamespace(catalog=catalog), "ci", watcher, lambda: None, 500, print, print)
    demo.await_switch(SimpleNamespace(endpoint="desk", treatment="desk-tuned@1"))
    assert still == []
