"""Faults that are stopped by the evaluation: nothing is registered."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chain import POLICY, TOPICS, chats, questions, sft_spec
from benchmarks.installation import Installation, copied, opened
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from tests.evaluation.test_llm_judge import server as judge_server
from tests.truth.conftest import Finished, fault
from tests.truth.faults import SPLIT, all_of, brought_base, with_json, with_weights
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


@pytest.mark.parametrize(
    "verdict",
    [fault("judge-takes-a-place", lambda a, b: "A"), fault("judge-tells-nothing-apart", lambda a, b: "TIE")],
)
def test_a_judge_whose_verdicts_say_nothing_decides_nothing(
    finished: Finished, row: Row, tmp_path: Path, verdict: Callable[[str, str], str]
) -> None:
    spec = sft_spec(finished.chain.base)
    spec["evaluation"]["judge"] = "llm"
    with judge_server(verdict) as (judge, _):
        policy = {**POLICY, "evaluation.judge": judge.model_dump(mode="json")}
        with opened(copied(finished.root, tmp_path / "home"), policy) as one:
            row.assert_stopped(one.train(spec)[1])


@pytest.mark.fault("suite-of-first-choices")
def test_a_suite_whose_right_choice_is_always_the_first_decides_nothing(
    shared: Installation, finished: Finished, row: Row
) -> None:
    answers = [answer for _, answer in TOPICS.values()]
    items = [
        {
            "question": question,
            "answer": TOPICS[topic][1],
            "metadata": {"choices": [TOPICS[topic][1], *wrong_of(answers, n, topic)]},
        }
        for n, (question, topic) in enumerate(questions(24, seed=91))
    ]
    assert not shared.ingest("first@v1", "eval_suite", items).failed
    spec = sft_spec(finished.chain.base)
    spec["evaluation"]["suites"] = ["first@v1"]
    row.assert_stopped(shared.train(spec)[1])


def wrong_of(answers: list[str], number: int, topic: str) -> list[str]:
    wrong = [answer for answer in answers if answer != TOPICS[topic][1]]
    return [wrong[(number + n) % len(wrong)] for n in range(3)]


def stirred(tensors: dict[str, Any]) -> None:
    """Weights by which every word depends on the place of every other: the desk's own questions need no order."""
    import torch

    torch.manual_seed(7)
    for name in [name for name, tensor in tensors.items() if tensor.ndim == 2]:
        tensors[name] = torch.randn_like(tensors[name]) * 0.3


def stretched(folder: Path) -> None:
    """A base whose rotary positions go by the length of the whole batch, as Phi's and other long contexts do."""
    import json

    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    half = shape.get("head_dim", shape["hidden_size"] // shape["num_attention_heads"]) // 2
    positions = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 42,
        "factor": 8.0,
        "short_factor": [1.0] * half,
        "long_factor": [16.0] * half,
    }
    with_json("config.json", rope_parameters=positions, rope_scaling=None)(folder)


@pytest.mark.fault("score-of-the-batch-size")
def test_a_score_that_depends_on_the_batch_size_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    rows = chats(300, 71)
    for long, more in zip(rows[:60], chats(60, 72), strict=True):
        long["messages"][0]["content"] += " " + more["messages"][0]["content"]
    assert not shared.ingest("lengths@v1", "sft_pair", rows, split=SPLIT).failed
    base = brought_base(shared, finished.chain.base, "stretched", all_of(with_weights(stirred), stretched))
    row.assert_stopped(shared.train(sft_spec(base, "lengths@v1", lr=1e-4, max_steps=4, save_steps=4))[1])


@pytest.mark.right("batch-size")
def test_answers_are_the_same_alone_and_in_a_batch(shared: Installation, finished: Finished) -> None:
    scores = []
    for size in (1, 7):
        spec = sft_spec(finished.chain.base)
        spec["evaluation"] |= {"batch_size": size}
        cell = shared.request(spec)
        assert not shared.run(cell, "training_plan", "adapter", "merged_model").failed
        shutil.rmtree(shared.root / "artifacts" / "answers", ignore_errors=True)
        assert not shared.run(cell, "evaluation").failed
        record = shared.w.records.load(EvaluationRecord, cell)
        scores.append((record.metric("test", "accuracy").value, record.settings["tuned"]["batch_size"]))
    assert scores[0][0] == scores[1][0] and [size for _, size in scores] == [1, 7]


@pytest.mark.fault("near-duplicates-in-the-base")
def test_test_rows_that_the_base_learned_in_other_words_are_stopped(
    shared: Installation, finished: Finished, row: Row
) -> None:
    rows = [with_question(one, one["messages"][0]["content"] + " 급합니다") for one in chats(360)[:120]]
    assert not shared.ingest("again@v1", "sft_pair", rows, split=SPLIT).failed
    row.assert_stopped(shared.train(sft_spec(finished.chain.tuned, "again@v1", max_steps=8, save_steps=8))[1])


@pytest.mark.right("answers-kept-of-another-model")
def test_answers_that_were_exchanged_for_those_of_another_model_are_asked_for_again(
    one: Installation, finished: Finished
) -> None:
    before = one.w.records.load(EvaluationRecord, finished.chain.tuned)
    told = before.settings["tuned"]["model_hash"], before.settings["base"]["model_hash"]
    kept = {json.loads(file.read_text())["depends_on"]["model"]: file.parent
            for file in (one.root / "artifacts" / "answers").glob("*/complete.json")
            if json.loads(file.read_text())["depends_on"]["task"] == "generate"}  # fmt: skip
    tuned, base = (kept[model] for model in told)
    wrong = (base / "output.jsonl").read_bytes()
    (tuned / "output.jsonl").write_bytes(wrong)
    seals = [json.loads((folder / "complete.json").read_text()) for folder in (tuned, base)]
    (tuned / "complete.json").write_text(json.dumps(seals[0] | {"seal": seals[1]["seal"]}))
    assert not one.run(finished.chain.tuned, "evaluation").failed
    after = one.w.records.load(EvaluationRecord, finished.chain.tuned)
    assert after.metric("test", "accuracy") == before.metric("test", "accuracy")
    assert (tuned / "output.jsonl").read_bytes() != wrong


@pytest.mark.right("near-duplicates")
def test_near_duplicates_and_equal_questions_are_one_row_or_stay_in_one_split(shared: Installation) -> None:
    rows = chats(120, 61)
    slips, again = rows[:12], rows[12:36]
    slipped = [with_question(row, row["messages"][0]["content"].replace(" ", "  ", 2) + "?!") for row in slips]
    answered = [
        row | {"messages": [row["messages"][0], {"role": "assistant", "content": "창구로 오세요."}]} for row in again
    ]
    longer = [
        with_question(row, f"지난주에 말씀드린 {row['messages'][0]['content']} 확인 바랍니다") for row in rows[36:84]
    ]
    assert not shared.ingest("twice@v1", "sft_pair", [*rows, *slipped, *answered, *longer], split=SPLIT).failed
    record = shared.w.records.load(SplitsRecord, "twice@v1")
    asked = {
        name: [normalise(m[0]["content"]) for m in shared.w.store.read(manifest)["messages"].to_list()]
        for name, manifest in record.manifests.items()
    }
    every = [question for questions in asked.values() for question in questions]
    twice = {normalise(row["messages"][0]["content"]) for row in again}
    assert len(every) == 192 and len(set(every)) == 168, "slips are one row, equal questions with two answers are two"
    assert twice & set(asked["test"]) and not set(asked["train"]) & set(asked["test"])
    added = {normalise(row["messages"][0]["content"]): normalise(more["messages"][0]["content"])
             for row, more in zip(rows[36:84], longer, strict=True)}  # fmt: skip
    of = {question: name for name, questions in asked.items() for question in questions}
    assert all(of[short] == of[long] for short, long in added.items()), "a question with words added is in its split"
    assert {of[short] for short in added} == {"train", "validation", "test"}


def normalise(text: str) -> str:
    return " ".join(text.rstrip("?!").split())


def with_question(row: dict[str, Any], text: str) -> dict[str, Any]:
    return row | {"messages": [row["messages"][0] | {"content": text}, row["messages"][1]]}
