"""`llmops suite`: what is registered, listed and refused, without a platform behind it."""

import json
from pathlib import Path

import pytest

from llmops_assets.cli import common
from tests.cli.test_commands import data, home, llmops  # noqa: F401  fixtures

COPA = "ID\tsentence\tquestion\t1\t2\tAnswer\n1\t비가 왔다.\t결과\t길이 젖었다.\t길이 말랐다.\t1\n"
TASK = """
task: lanes
output_type: multiple_choice
doc_to_text: "질문: {{question}} 답변:"
doc_to_choice: ["네", "아니요"]
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def copa(home: Path) -> Path:  # noqa: F811
    path = home / "copa.tsv"
    path.write_text(COPA, encoding="utf-8")
    return path


def test_a_benchmark_is_registered_with_how_it_is_judged(copa: Path) -> None:
    assert llmops("suite", "add", "kobest-copa@v1", copa, "--format", "kobest-copa")[0] == 0
    spec = common.wiring().catalog.dataset("kobest-copa@v1")
    assert (spec.type, spec.suite.judge, spec.suite.length_norm) == ("eval_suite", "multiple_choice", "characters")
    assert spec.suite.general and spec.suite.as_published
    (row,) = json.loads(llmops("suite", "list", "--json")[1])
    assert (row["suite"], row["format"], row["judge"]) == ("kobest-copa@v1", "kobest-copa", "multiple_choice")
    upload = common.wiring().artifacts.path("uploads", "kobest-copa@v1", "kobest-copa.jsonl")
    assert upload.exists()
    again = llmops("suite", "add", "kobest-copa@v1", copa, "--format", "kobest-copa")
    assert again[0] == 0 and "registered already" in again[1]


def test_a_version_is_judged_in_one_way_for_ever(copa: Path) -> None:
    assert llmops("suite", "add", "c@v1", copa, "--format", "kobest-copa")[0] == 0
    code, _, told = llmops("suite", "add", "c@v1", copa, "--format", "kobest-copa", "--length-norm", "none")
    assert code == 1 and "asked or judged in another way" in told and "c@next" in told


def test_own_cases_name_their_judge(data: Path) -> None:  # noqa: F811
    assert llmops("suite", "add", "cases@v1", data, "--judge", "contains", "--metric", "chrf")[0] == 0
    spec = common.wiring().catalog.dataset("cases@v1").suite
    assert (spec.judge, spec.metrics, spec.general, spec.as_published) == ("contains", ["chrf"], False, False)
    shown = json.loads(llmops("suite", "show", "cases@v1", "--json")[1])
    assert shown["spec"]["judge"] == "contains" and shown["items"] is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (COPA.replace("결과", "그래서"), "copa.tsv:2: question is '그래서'"),
        (COPA.replace("\t1\n", "\t3\n"), "copa.tsv:2: Answer is '3'"),
        (COPA.replace("Answer", "Gold"), "copa.tsv:1: has no column Answer"),
        (COPA.replace("비가 왔다.", " "), "copa.tsv:2: sentence is empty"),
        (COPA.splitlines()[0] + "\n", "has no rows of kobest-copa"),
    ],
)
def test_a_file_that_is_not_in_its_format_is_named_with_its_line(copa: Path, text: str, told: str) -> None:
    copa.write_text(text, encoding="utf-8")
    code, _, error = llmops("suite", "add", "c@v1", copa, "--format", "kobest-copa")
    assert code == 1 and told in error.replace("\n", "")
    assert common.wiring().catalog.datasets() == []


def test_a_task_of_lm_eval_is_kept_with_its_documents(home: Path) -> None:  # noqa: F811
    (home / "task.yaml").write_text(TASK, encoding="utf-8")
    documents = [{"question": f"{n}번 열렸나요?", "label": n % 2} for n in range(3)]
    (home / "docs.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents), encoding="utf-8")
    arguments = ("suite", "add", "lanes@v1", home / "task.yaml", home / "docs.jsonl", "--format", "lm-eval")
    code, _, error = llmops(*arguments, "--metric", "acc")
    assert code == 0, error
    spec = common.wiring().catalog.dataset("lanes@v1").suite
    assert spec.harness.config["task"] == "lanes" and spec.harness.metric == "acc"
    upload = common.wiring().artifacts.path("uploads", "lanes@v1", "lanes.jsonl")
    rows = [json.loads(line) for line in upload.read_text(encoding="utf-8").splitlines()]
    assert [row["messages"][1]["content"] for row in rows] == ["네", "아니요", "네"]
    assert [json.loads(row["metadata"]["document"]) for row in rows] == documents

    (home / "task.yaml").write_text(TASK + "\nprocess_docs: !function utils.go\n", encoding="utf-8")
    code, _, error = llmops(*arguments[:2], "other@v1", *arguments[3:])
    assert code == 1 and "!function" in error


def test_what_is_no_suite_is_not_shown_as_one(data: Path) -> None:  # noqa: F811
    assert llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")[0] == 0
    code, _, error = llmops("suite", "show", "desk@v1")
    assert code == 1 and "no suite" in error
    assert json.loads(llmops("suite", "list", "--json")[1]) == []
    assert llmops("suite", "add", "x@v1", data, "--format", "mmlu")[0] == 1


def test_an_archived_suite_is_asked_no_more_until_it_is_restored(data: Path) -> None:  # noqa: F811
    from llmops_assets.datasets.suites import registered_suites
    from llmops_assets.evaluation.assets import archived_of

    assert llmops("suite", "add", "cases@v1", data, "--judge", "contains")[0] == 0
    code, out, _ = llmops("suite", "archive", "cases@v1")
    assert code == 0 and "archived: cases@v1" in out
    w = common.wiring()
    assert w.catalog.dataset_entry("cases@v1").status == "archived"
    assert archived_of(["other@v1", "cases@v1"], w.catalog) == ["cases@v1"]
    assert registered_suites(w.catalog, w.records) == {}
    (row,) = json.loads(llmops("suite", "list", "--json")[1])
    assert row["status"] == "archived"
    assert "archived already" in llmops("suite", "archive", "cases@v1")[1]
    assert "in use again" in llmops("suite", "restore", "cases@v1")[1]
    assert w.catalog.dataset_entry("cases@v1").status == "active"
    assert "in use already" in llmops("suite", "restore", "cases@v1")[1]
    actions = [line["action"] for line in w.catalog.audit_log(100)]
    assert (actions.count("suite.archive"), actions.count("suite.restore")) == (1, 1)
    assert llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")[0] == 0
    code, _, error = llmops("suite", "archive", "desk@v1")
    assert code == 1 and "no suite" in error
