"""What is spoiled at random is stopped or does nothing; `benchmarks.mutations` tries a thousand, these are a few."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.mutation_kinds import Mutation, spoil
from benchmarks.mutation_points import POINTS, Outcome, Runner, build
from benchmarks.mutations import clean_answers, judge, one_run

SEED, RUNS = 20261130, 12


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    yield Runner(build(tmp_path_factory.mktemp("timeline")))


@pytest.mark.timeout(3000)
def test_nothing_that_is_spoiled_at_random_is_served_in_silence(runner: Runner, tmp_path: Path) -> None:
    clean = clean_answers(runner, tmp_path)
    assert len({tuple(answer) for answer in clean}) > 3, "a chain that answers everything alike would notice nothing"
    found = [one_run(number, SEED, runner, clean, tmp_path) for number in range(RUNS)]
    silent = [verdict.line() for verdict in found if verdict.verdict == "SILENT"]
    assert not silent, "\n".join(silent)


def test_the_same_seed_spoils_the_same(runner: Runner, tmp_path: Path) -> None:
    from benchmarks.mutation_points import fresh

    for number in range(8):
        point = POINTS[number]
        first, second = (
            spoil(fresh(runner.timeline, point, tmp_path / name), point, random.Random(number)) for name in "ab"
        )
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
