"""A model against its base and the one in production: what changed, what was forgotten, and what withholds it."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from images.ask import bertscore, choices, generate, harness, perplexity
from llmops_assets.evaluation import harness as tasks
from llmops_assets.evaluation import report
from llmops_assets.evaluation.answers import Model
from llmops_assets.evaluation.case import Baseline, Case, Evaluated, Identity, Rows
from llmops_assets.evaluation.evaluate import evaluate, record_hash
from llmops_assets.evaluation.gate import judge_gate
from llmops_assets.evaluation.verdicts import forgetting, further_gates, regression, withholding
from llmops_assets.records.jobs import ChoicesJob, GenerateJob, Job
from llmops_assets.specs.evaluation_rules import EvaluationPolicy, Forgetting, Gate, Regression
from llmops_assets.specs.suite import SuiteSpec
from resources.content import content_hash
from tests.evaluation.conftest import make_tiny_model, read_jsonl, write_jsonl
from tests.evaluation.test_assets import spec_of
from tests.evaluation.test_choices import TASK
from tests.evaluation.test_suites import chat_frame

GENERAL, LABELS = "general@v1", ["열림", "닫힘", "공사"]
POLICY = EvaluationPolicy(latency_items=3)


class InProcess:
    """The worker's tasks in this process."""

    def run(self, context: Any, job: Job, *, work_dir: Path) -> dict[str, Any]:
        tasks = {"generate": generate, "choices": choices, "harness": harness, "bertscore": bertscore}
        tasks["perplexity"] = perplexity
        return tasks[job.task].run(job)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two random models, and what the first of them says to forty questions."""
    root = tmp_path_factory.mktemp("two")
    one, two = make_tiny_model(root / "one", seed=1), make_tiny_model(root / "two", seed=2)
    questions = [f"{n}번 차로는 지금 어떤가요?" for n in range(40)]
    prompts = [
        {"id": str(n), "messages": [{"role": "user", "content": q}], "choices": LABELS} for n, q in enumerate(questions)
    ]
    files = {"prompts_file": str(write_jsonl(root / "p", prompts)), "output_file": str(root / "o")}
    generate.run(GenerateJob.model_validate({"model_dir": str(one), "max_new_tokens": 6, **files}))
    said = [row["text"] for row in read_jsonl(root / "o")]
    choices.run(ChoicesJob.model_validate({"model_dir": str(one), **files}))
    chosen = [LABELS[row["nll"].index(min(row["nll"]))] for row in read_jsonl(root / "o")]
    return SimpleNamespace(
        one=Model(str(one), content_hash(one)),
        two=Model(str(two), content_hash(two)),
        questions=questions,
        said=said,
        chosen=chosen,
        root=root,
    )


def case(models: SimpleNamespace, tuned: Model, other: Model, batch_size: int = 16, cache: str = "cache") -> Case:
    """`tuned` with `other` as its base and in production; by definition the first model is right everywhere."""
    rows = zip(models.questions, models.said, strict=True)
    test = chat_frame([(f"t{n}", "lane", q, a.strip() or "-", {"lane": n // 4}) for n, (q, a) in enumerate(rows)])
    rows = zip(models.questions, models.chosen, strict=True)
    general = chat_frame([(f"g{n}", "state", q, a, {"choices": LABELS}) for n, (q, a) in enumerate(rows)])
    options = {"max_new_tokens": 6, "batch_size": batch_size, "suites": [GENERAL]}
    return Case(
        identity=Identity("desk@v1", "tiny", "key"),
        spec=spec_of("tiny", "desk@v1", evaluation=options),
        tuned=tuned,
        test=Rows("sft_pair", test, cluster_by="lane"),
        suites={GENERAL: Rows("eval_suite", general, SuiteSpec(judge="multiple_choice", general=True))},
        answers=models.root / "answers.jsonl",
        cache=models.root / cache,
        worker=InProcess(),
        base=Baseline("base", "corpus@v1|base", other),
        production=Baseline("production", "tiny@3", other),
        policy=POLICY,
    )


@pytest.fixture(scope="module")
def better(models: SimpleNamespace) -> Evaluated:
    return evaluate(case(models, models.one, models.two))


@pytest.fixture(scope="module")
def worse(models: SimpleNamespace) -> Evaluated:
    return evaluate(case(models, models.two, models.one))


def test_a_worse_model_is_withheld_with_the_answers_that_changed(worse: Evaluated) -> None:
    found = regression(worse.record, POLICY.regression)
    assert not found.passed and "Worse than tiny@3" in found.text and "McNemar's p" in found.text
    assert regression(worse.record, Regression(withhold=False)).passed
    change = next(c for c in worse.errors.changes if (c.suite, c.against) == ("test", "production"))
    assert change.worse > 10 and change.rows[0][0] == "now wrong" and len(change.rows) <= 20
    assert change.rows[0][3] == change.rows[0][4] != change.rows[0][5], "expected, and what production says"
    assert any(verdict.text == found.text for verdict in withholding(worse.record, POLICY, 0.01))


def test_a_better_model_is_not(better: Evaluated) -> None:
    assert regression(better.record, POLICY.regression).passed
    assert withholding(better.record, POLICY, 0.01, max_cut=1.0) == []  # random weights never end a turn
    d = next(d for d in better.record.differences if (d.suite, d.against) == (GENERAL, "base"))
    assert d.low <= d.difference <= d.high and d.only_other == 0 and d.test == "exact"


def test_forgetting_is_a_fall_on_general_suites_beyond_what_the_policy_allows(
    better: Evaluated, worse: Evaluated
) -> None:
    found = forgetting(worse.record, Forgetting(max_fall=0.05))
    assert not found.passed and GENERAL in found.text and "test:" not in found.text
    assert forgetting(worse.record, Forgetting(max_fall=1.0)).passed
    assert forgetting(better.record, Forgetting(max_fall=0.0, decided_by="point")).passed
    other = worse.record.model_copy(update={"general": []})
    assert forgetting(other, Forgetting()).passed, "only suites that measure general ability count"


def test_a_gate_on_a_suite_or_on_the_lower_bound_withholds(better: Evaluated) -> None:
    gate = Gate(metric="accuracy", suite=GENERAL, at_least=0.95, n_at_least=40)
    assert further_gates(better.record, [gate]).passed
    strict = gate.model_copy(update={"decided_by": "interval"})
    found = further_gates(better.record, [strict])
    assert not found.passed and "lower 95 % bound of accuracy" in found.text, "40 of 40 leave room below 0.95"
    assert further_gates(better.record, [gate.model_copy(update={"suite": "other@v1"})]).passed


def test_questions_in_several_phrasings_widen_the_interval(better: Evaluated) -> None:
    ours, plain = better.record.metric("test", "accuracy"), better.record.metric(GENERAL, "accuracy")
    assert ours.n == plain.n == 40 and ours.low < plain.low, "ten lanes were asked about, four times each"


def test_twice_the_same_figures_whatever_the_batch(models: SimpleNamespace, better: Evaluated) -> None:
    again = evaluate(case(models, models.one, models.two, batch_size=1, cache="other"))
    assert record_hash(again.record, again.rows) == record_hash(better.record, better.rows)
    told = better.record.settings["tuned"]
    pinned = ("model_hash", "engine", "batch_size", "seed", "chat_template_hash", "decoding", "precision")
    assert all(told[name] is not None for name in pinned)


def test_latency_is_measured_one_request_at_a_time(better: Evaluated) -> None:
    speed = {m.name: m for m in better.record.metrics if m.suite == "speed"}
    assert set(speed) == {"latency_p50_seconds", "latency_p95_seconds", "tokens_per_second"}
    assert all(m.n == 3 and 0 < m.low <= m.value <= m.high for m in speed.values())


def test_the_report_shows_confusion_changes_and_latency(worse: Evaluated) -> None:
    gate = judge_gate(worse.record, Gate(metric="accuracy", at_least=0.9, n_at_least=20))
    page = report.html("desk@v1|tiny", worse.record, gate, worse.errors, "data:image/png;base64,")
    labels, counts = worse.errors.matrix[GENERAL]
    assert f"Confusion on {GENERAL}" in page and all(label in page for label in labels)
    assert sum(map(sum, counts)) == 40 and "became wrong" in page and "histogram of seconds" in page
    assert "<script" not in page and "http" not in page


def test_lm_eval_and_bertscore_stand_beside_the_other_figures(
    models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    documents = [{"question": f"{n}번 차로 열렸나요?", "label": n % 2} for n in range(12)]
    rows = tasks.rows_of(InProcess(), TASK, documents, tmp_path / "render")
    frame = chat_frame(
        [
            (f"d{n}", None, row["messages"][0]["content"], row["messages"][1]["content"], row["metadata"])
            for n, row in enumerate(rows)
        ]
    )
    plain = case(models, models.one, models.two)
    options = plain.spec.evaluation.model_copy(update={"metrics": ["bertscore", "chrf"], "encoder": models.two.path})
    both = dataclasses.replace(
        plain,
        spec=plain.spec.model_copy(update={"evaluation": options}),
        suites={"lanes@v1": Rows("eval_suite", frame, tasks.spec_of(TASK, "acc", general=True))},
        production=None,
    )
    record = evaluate(both).record
    lanes = record.metric("lanes@v1", "accuracy")
    assert lanes.n == 12
    assert record.settings["tuned"]["lanes@v1"]["results"]["acc,none"] == pytest.approx(lanes.value)
    assert record.metric("lanes@v1", "accuracy", "base") and record.general == ["lanes@v1"]
    assert record.metric("test", "bertscore").value > 0.99 > record.metric("test", "bertscore", "base").value
    assert record.metric("test", "chrf").value > 99 and record.metric("test", "bleu") is None, "those that were named"


def test_a_pre_trained_model_ranks_choices_and_answers_no_questions(models: SimpleNamespace) -> None:
    chat = case(models, models.one, models.two)
    corpus = chat_frame([(f"d{n}", "lane", q, "", {}) for n, q in enumerate(models.questions)])
    corpus = corpus.with_columns(text=corpus["messages"].list.first().struct.field("content"))
    suites = chat.suites | {"free@v1": Rows("eval_suite", chat.test.frame)}
    options = {"job_type": "PRETRAIN", "base_model_ref": None, "method": "full"}
    made = dataclasses.replace(
        chat,
        spec=spec_of("tiny-base", "corpus@v1", **options),
        test=Rows("pretrain_corpus", corpus),
        suites=suites,
        base=None,
        production=None,
    )
    record = evaluate(made).record
    assert record.metric("test", "perplexity").n == 40 and record.metric(GENERAL, "accuracy").value == 1
    assert record.items == {"test": 40, GENERAL: 40} and "not asked free@v1" in record.baseline
    assert not withholding(record, POLICY, 0.01, max_cut=1.0)
