"""Whether a model beats its base: the text names the figure that decides, and the others beside it."""

from typing import Any

from llmops_assets.evaluation.gate import judge_gate
from llmops_assets.evaluation.verdicts import compare_with_base, same_alone
from llmops_assets.records.evaluation import EvaluationRecord, Metric
from llmops_assets.records.training import BaseReading
from llmops_assets.specs.evaluation_rules import Gate


def metric(name: str, value: float, model: str, spread: float = 2.0) -> Metric:
    return Metric(suite="test", name=name, value=value, low=value - spread, high=value + spread, n=100, model=model)


def record(*figures: Metric, **mcnemar: float) -> EvaluationRecord:
    values: dict[str, Any] = {"only_tuned": 0, "only_base": 0, "both": 0, "neither": 100, "p": 1.0} | mcnemar
    return EvaluationRecord(
        dataset="desk@v1",
        recipe="r",
        training_key="k",
        model_hash="h",
        metrics=list(figures),
        empty_answers=0,
        length_truncated=0,
        by_category={},
        answers="answers.jsonl",
        seconds=1.0,
        versus_base={"test": values},
        judges={"test": "exact"},
    )


def free_texts(bleu: float) -> list[Metric]:
    return [
        metric("bleu", bleu, "tuned"),
        metric("bleu", 1.6, "base"),
        metric("rouge_l", 0.8, "tuned", 0.01),
        metric("rouge_l", 0.1, "base", 0.01),
    ]


def test_where_no_answer_is_right_word_by_word_bleu_decides() -> None:
    verdict = compare_with_base(record(*free_texts(75.2)))
    assert verdict.passed
    assert "so bleu decides: 75.2 (95 % interval 73.2 to 77.2, n = 100) against the base's 1.6" in verdict.text
    assert "Beside it: rouge_l 0.800 to 0.100" in verdict.text
    assert verdict.figures["bleu, tuned"] == 75.2


def test_a_free_text_figure_within_the_noise_is_no_progress() -> None:
    verdict = compare_with_base(record(*free_texts(2.0)))
    assert not verdict.passed and "the difference may be chance" in verdict.text
    worse = compare_with_base(record(*free_texts(1.0)))
    assert not worse.passed and "By bleu, training made it no better" in worse.text


def test_where_answers_are_right_accuracy_decides_and_the_others_stand_beside_it() -> None:
    figures = free_texts(75.2)
    better = compare_with_base(record(*figures, only_tuned=40, p=1e-9))
    assert better.passed and better.text.startswith("Accuracy (judge: exact) decides: of suite test, 40 items")
    assert "Beside it, against the base: bleu 75.2 to 1.6, rouge_l 0.800 to 0.100." in better.text
    same = compare_with_base(record(*figures, only_tuned=1, only_base=2, p=0.9))
    assert not same.passed and "By accuracy, training made it no better" in same.text
    assert "bleu 75.2 to 1.6" in same.text


def test_a_gate_counts_the_accuracy_of_its_own_judge_only() -> None:
    accuracy = Metric(suite="test", name="accuracy", value=0.95, low=0.92, high=0.97, n=300)
    gate = Gate(metric="accuracy", judge="exact", at_least=0.9, n_at_least=200)
    for judges, passes in (("exact", True), ("calls, exact", True), ("contains", False), ("contains, exact", False)):
        outcome = judge_gate(record(accuracy).model_copy(update={"judges": {"test": judges}}), gate)
        assert outcome.passed is passes, judges
        assert passes or f"was judged by {judges}" in outcome.text
    assert judge_gate(record(accuracy), gate).passed
    loose = record(accuracy).model_copy(update={"judges": {"test": "contains"}})
    assert judge_gate(loose, gate.model_copy(update={"judge": None})).passed


def test_a_gate_that_is_missed_begins_with_a_base_that_guesses() -> None:
    wrong = Metric(suite="test", name="accuracy", value=0.02, low=0.01, high=0.05, n=300)
    gate = Gate(metric="accuracy", judge="exact", at_least=0.9, n_at_least=200)

    def read(loss: float) -> str:
        reading = BaseReading(loss=loss, guessing=10.4, tokens=800)
        return judge_gate(record(wrong).model_copy(update={"base_reading": reading}), gate).text

    assert "But first: the base itself predicts the texts of these rows no better than guessing (13.1" in read(13.1)
    assert "train longer" in read(13.1) and "guessing" not in read(3.0)
    right = wrong.model_copy(update={"value": 0.95, "low": 0.93, "high": 0.97})
    new = BaseReading(loss=13.1, guessing=10.4, tokens=800)
    assert "guessing" not in judge_gate(record(right).model_copy(update={"base_reading": new}), gate).text


def test_answers_that_differ_alone_by_more_than_rounding_withhold_a_model() -> None:
    def asked(precision: str, *gaps: float) -> EvaluationRecord:
        found = record().model_copy(update={"asked_alone": {f"item {n}": gap for n, gap in enumerate(gaps)}})
        return found.model_copy(update={"settings": {"tuned": {"precision": precision, "batch_size": 64}}})

    assert same_alone(record()).passed, "a record of an earlier release"
    assert same_alone(asked("fp32", 0.0, 1e-4)).passed and same_alone(asked("bf16", 0.0, 0.4)).passed
    for other in (asked("fp32", 0.0, 0.4), asked("bf16", 3.0)):
        verdict = same_alone(other)
        assert not verdict.passed and "1 of" in verdict.text and "batch of 64" in verdict.text
