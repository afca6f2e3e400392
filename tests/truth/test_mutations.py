"""What is spoiled at random is stopped or does nothing; `benchmarks.mutations` tries a thousand, these are a few."""

import random
from pathlib import Path

import pytest

from benchmarks.mutation_kinds import KINDS, Mutation, spoil
from benchmarks.mutation_points import Outcome, Runner, Timeline, fresh
from benchmarks.mutations import clean_answers, judge, one_run

SEED = 20261130
CASES = (
    ("bytes", "merged_model"),
    ("bytes", "deployment"),
    ("field", "evaluation"),
    ("field", "registered_model"),
    ("field", "restart"),
    ("row", "deployment"),
    ("row", "restart"),
    ("exchange", "evaluation"),
    ("exchange", "restart"),
    ("kill", "registered_model"),
    ("clock", "deployment"),
    # The way on from here takes as long as three others: what is spoiled this early has a training before it.
    ("exchange", "training_plan"),
)
"""Each kind of mutation, before several steps. The later the step, the less is left to do."""


@pytest.fixture(scope="module")
def runner(timeline: Timeline) -> Runner:
    return Runner(timeline)


@pytest.fixture(scope="module")
def clean(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    answers = clean_answers(runner, tmp_path_factory.mktemp("clean"))
    assert len({tuple(answer) for answer in answers}) > 3, "a chain that answers everything alike would notice nothing"
    return answers


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("number", "kind", "point"), [(n, *case) for n, case in enumerate(CASES)])
def test_nothing_that_is_spoiled_at_random_is_served_in_silence(
    runner: Runner, clean: list[list[int]], tmp_path: Path, number: int, kind: str, point: str
) -> None:
    found = one_run(number, SEED, runner, clean, tmp_path, (point, kind))
    assert found.verdict != "SILENT", found.line()


def test_every_kind_of_mutation_is_tried() -> None:
    assert {kind for kind, _ in CASES} == set(KINDS)


def test_the_same_seed_spoils_the_same(timeline: Timeline, tmp_path: Path) -> None:
    for number, point in enumerate(("dataset", "merged_model", "deployment", "restart")):
        first, second = (spoil(fresh(timeline, point, tmp_path / name), point, random.Random(number)) for name in "ab")
        assert first == second


def test_verdicts() -> None:
    mutation = Mutation("bytes", "artifacts/models/a/model.safetensors", "cut")
    clean = [[1, 2]]
    assert judge(mutation, Outcome([[1, 2]], None, {}), clean) == "harmless"
    assert judge(mutation, Outcome([[1, 3]], None, {}), clean) == "SILENT"
    named = {"merged_model": "model.safetensors is not what was sealed"}
    assert judge(mutation, Outcome(None, "merged_model", named), clean) == "stopped by name"
    by_check = {"weights_moved": "the weights moved by 0"}
    assert judge(mutation, Outcome(None, "adapter", by_check), clean) == "stopped by name"
    assert judge(mutation, Outcome(None, "adapter", {"adapter": "KeyError: 'x'"}), clean) == "stopped unclearly"
    assert judge(mutation, Outcome(None, "adapter", {"adapter": "exit code 1"}), clean) == "stopped unclearly"
    assert judge(mutation, Outcome(None, "adapter", named, crashed=True), clean) == "stopped unclearly"
