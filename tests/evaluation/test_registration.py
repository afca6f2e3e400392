"""Suites are looked at when they are registered: what could not be asked or judged is refused, all of it at once."""

import csv
import json
from pathlib import Path

import pytest

from llmops_assets.evaluation import formats
from llmops_assets.evaluation.registration import Checked, SuiteFaults, checked
from llmops_assets.evaluation.suites import items_and_faults
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import load_policy
from tests.cli.test_commands import home, llmops  # noqa: F401  fixtures
from tests.evaluation.conftest import write_jsonl

POLICY = load_policy()


def look(path: Path, **suite: object) -> Checked:
    spec = DatasetSpec.model_validate(
        {
            "name": "s",
            "version": "v1",
            "owner": "team",
            "description": "a suite",
            "type": "eval_suite",
            "files": [str(path)],
            "split": {"ratios": (0.0, 0.0, 1.0)},
            "suite": suite or None,
        }
    )
    return checked(spec, [(path.name, path)], POLICY, judge_given="judge" in suite)


def refused(path: Path, **suite: object) -> list[str]:
    with pytest.raises(SuiteFaults) as error:
        look(path, **suite)
    return error.value.faults


def asked(path: Path, **suite: object) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """(question, choices, references) of the items as they will be asked."""
    from upath import UPath

    from llmops_assets.datasets.reading.ingest import ingest

    found = look(path, **suite).suite
    (batch,) = ingest([(path.name, UPath(path))], "eval_suite")
    items, faults = items_and_faults(batch.rows, "s", spec=found)
    assert not faults
    return [(item.question, item.choices, item.references) for item, _ in items]


@pytest.mark.parametrize(
    ("row", "suite", "reason"),
    [
        ({"question": "괄호를 닫으세요", "answer": "(열림"}, {"judge": "regex"}, "no regular expression"),
        ({"question": "q", "answer": "(a+)+$"}, {"judge": "regex"}, "can take hours"),
        ({"question": "q", "answer": ".*"}, {"judge": "regex"}, "matches an empty answer"),
        ({"question": "q", "answer": "많다"}, {"judge": "number"}, "no number"),
        ({"question": "q", "answer": "x > 5"}, {"judge": "number"}, "does not work out"),
        ({"question": "q", "answer": "A"}, {"judge": "letter"}, "shows no options"),
        ({"question": "q", "answer": "제주"}, {"judge": "letter"}, "no letter"),
        ({"question": "q", "answer": "a"}, {"judge": "llm"}, "the policy names none"),
        ({"question": "q", "answer": "a", "metadata": {"judge": "llm"}}, {}, "the policy names none"),
        ({"question": "q", "answer": "a", "metadata": {"judge": "oracle"}}, {}, "judge 'oracle' is none of"),
        ({"question": "q", "answer": "a", "metadata": {"references": [" "]}}, {}, "none of them empty"),
        ({"question": "q", "answer": "a", "metadata": {"choices": ["a", "b"]}}, {"judge": "exact"}, "has choices"),
        ({"question": "q", "answer": "c", "metadata": {"choices": ["a", "b"]}}, {}, "none of the choices a, b"),
        ({"question": "q", "answer": "C", "metadata": {"choices": ["a", "b"]}}, {}, "none of the choices a, b"),
        ({"question": "q", "answer": "a", "metadata": {"choices": ["a", "a"]}}, {}, "two or more different"),
        ({"question": "q", "answer": "a", "metadata": {"choices": "ab"}}, {}, "no list"),
        ({"question": "", "answer": "a"}, {}, "a message is empty"),
        ({"answer": "a"}, {}, "expected"),
        ({"question": "q", "answer": "a"}, {"length_norm": "characters"}, "does nothing without multiple_choice"),
        ({"question": "q", "answer": "a"}, {"metrics": ["bertscore"]}, "needs `encoder`"),
        ({"question": "q", "answer": "a"}, {"encoder": "/nowhere"}, "without bertscore"),
        ({"question": "q", "answer": "a"}, {"cluster_by": "group"}, "no row has 'group'"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, {}, "numbers count from 0"),
        ({"question": "q", "choices": ["1", "0"], "answer": 1}, {}, "another one's place"),
        ({"question": "q", "choices": ["a", "b"], "answer": -1}, {}, "no answer"),
        ({"question": "q", "choices": ["a", ""], "answer": 0}, {}, "option B is empty"),
        ({"question": "q", "A": "a", "B": "b", "answer": "C"}, {}, "names none of the 2 options"),
        ({"question": "q", "A": "a", "B": "b", "C": "c", "D": "d", "answer": 5}, {}, "numbers count from 1"),
        ({"ctx": "c", "endings": ["a", "b"], "label": ""}, {}, "no answer"),
        ({"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}, {}, "one _"),
        ({"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [0, 0]}}, {}, "one of them 1"),
    ],
)
def test_what_could_not_be_asked_or_judged_is_refused_by_name(
    tmp_path: Path, row: dict, suite: dict, reason: str
) -> None:
    faults = refused(write_jsonl(tmp_path / "s.jsonl", [row]), **suite)
    assert any(reason in fault for fault in faults), faults


def test_all_faults_come_at_once_with_file_and_line_and_item(tmp_path: Path) -> None:
    rows = [{"question": f"질문 {n}", "answer": "많다"} for n in range(3)] + [{"question": "질문 4", "answer": "4"}]
    faults = refused(write_jsonl(tmp_path / "s.jsonl", rows), judge="number")
    assert [fault.split(": ")[0] for fault in faults] == ["s.jsonl:1", "s.jsonl:2", "s.jsonl:3"]
    assert all(f"(asked: 질문 {n})" in fault for n, fault in enumerate(faults))


def test_the_same_question_with_another_answer_is_refused_and_with_more_references_not(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a"}, {"question": "q", "answer": "b"}]
    (fault,) = refused(write_jsonl(tmp_path / "s.jsonl", rows))
    assert fault.startswith("s.jsonl:2: the same is asked at s.jsonl:1, with another answer")
    both = [{"question": "q", "answer": "a", "metadata": {"references": ["b"]}}]
    look(write_jsonl(tmp_path / "t.jsonl", both))
    # What a benchmark's authors published is asked all the same, and said.
    notes = look(tmp_path / "s.jsonl", as_published=True, judge="exact").notes
    assert len(notes) == 1 and "another answer" in notes[0]


def test_a_letter_is_asked_with_its_options(tmp_path: Path) -> None:
    row = {"question": "2+2는?", "answer": "B", "metadata": {"choices": ["3", "4", "5"]}}
    path = write_jsonl(tmp_path / "s.jsonl", [row])
    assert look(path).suite.judge == "multiple_choice" and "since every item has choices" in look(path).notes[0]
    expected = ("2+2는?\nA. 3\nB. 4\nC. 5", ("A", "B", "C"), ("B",))
    assert asked(path) == [expected]
    assert asked(path, judge="letter")[0][0] == expected[0]
    shown = {**row, "question": "2+2는?\n(A) 3\n(B) 4\n(C) 5"}
    assert asked(write_jsonl(tmp_path / "t.jsonl", [shown]))[0][0] == shown["question"]


LETTERED = ("q\nA. a\nB. b\nC. c\nD. d", ("A", "B", "C", "D"), ("B",))
FOUR = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("row", "item"),
    [
        ({"question": "q", "subject": "s", "choices": FOUR, "answer": 1}, LETTERED),
        ({"question": "q", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "B"}, LETTERED),
        ({"question": "q", "answer": 2, "A": "a", "B": "b", "C": "c", "D": "d", "Human Accuracy": 0.5}, LETTERED),
        ({"question": "q", "options": FOUR, "answer": "B", "answer_index": 1}, LETTERED),
        ({"question": "q", "options": ["A)a", "B)b", "C)c", "D)d"], "correct": "B", "rationale": "r"}, LETTERED),
        (
            {
                "question": {"stem": "q", "choices": [{"text": t, "label": f"{n}"} for n, t in enumerate(FOUR, 1)]},
                "answerKey": "2",
            },
            LETTERED,
        ),
        ({"question": "q", "choices": {"text": FOUR, "label": ["A", "B", "C", "D"]}, "answerKey": "B"}, LETTERED),
        ({"question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 1}, LETTERED),
        ({"question": "q", "choices": ["a", "b"], "answer": "b"}, ("q", ("a", "b"), ("b",))),
        ({"ctx": "c", "endings": FOUR, "label": "1", "activity_label": "Cooking"}, ("Cooking: c", tuple(FOUR), ("b",))),
        ({"goal": "g", "sol1": "a", "sol2": "b", "label": 1}, ("g", ("a", "b"), ("b",))),
        (
            {"sentence": "The _ fell.", "option1": "a", "option2": "b", "answer": "2"},
            ("The _ fell.\nA. a\nB. b", ("A", "B"), ("B",)),
        ),
        ({"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [0, 1]}}, ("q", ("a", "b"), ("b",))),
        ({"passage": "p", "question": "q", "answer": True}, ("p\n\nq\nAnswer yes or no.", ("no", "yes"), ("yes",))),
        (
            {"premise": "p", "question": "cause", "choice1": "a", "choice2": "b", "label": 1},
            ("p\nWhat was the cause?", ("a", "b"), ("b",)),
        ),
        (
            {"context": "c", "choice1": "a", "choice2": "b", "choice3": "c", "choice4": "d", "label": "1"},
            ("c\n이어질 문장은 무엇인가요?", tuple(FOUR), ("b",)),
        ),
        (
            {"article": "text", "question": "q", "options": FOUR, "answer": "B"},
            ("text\n\n" + LETTERED[0], *LETTERED[1:]),
        ),
    ],
)
def test_the_rows_of_published_benchmarks_are_read_as_such(tmp_path: Path, row: dict, item: tuple) -> None:
    assert asked(write_jsonl(tmp_path / "s.jsonl", [row])) == [item]


def test_mmlu_with_a_header_and_without_is_asked_with_its_options(tmp_path: Path) -> None:
    rows = [["q", "a", "b", "c", "d", "B"], ['또 "q"', "a", "b", "c", "d", "A"]]
    bare, headed = tmp_path / "bare.csv", tmp_path / "headed.csv"
    for path, lines in ((bare, rows), (headed, [["question", "A", "B", "C", "D", "answer"], *rows])):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(lines)
    assert asked(headed)[0] == LETTERED
    (fault,) = refused(bare)
    assert "without a header" in fault and "--format mmlu" in fault
    read = formats.rows_of("mmlu", bare)
    assert read[0]["messages"][0]["content"] == LETTERED[0] and read[1]["metadata"]["choices"] == list("ABCD")
    assert formats.rows_of("mmlu", headed) == read


def test_gsm8k_is_judged_by_the_number_behind_the_hashes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "s.jsonl", [{"question": "q", "answer": "Half: 48/2 = <<48/2=24>>24.\n#### 1,024"}])
    assert look(path).suite.judge == "number"
    assert formats.rows_of("gsm8k", path)[0]["messages"][1]["content"] == "1,024"
    broken = write_jsonl(tmp_path / "t.jsonl", [{"question": "q", "answer": "24"}] * 2)
    with pytest.raises(formats.FormatError, match=r"t\.jsonl:1: answer: no ####.*\n.*t\.jsonl:2"):
        formats.rows_of("gsm8k", broken)


def test_every_row_that_is_not_of_its_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "copa.tsv"
    line = "1\t비가 왔다.\t결과\t젖었다.\t말랐다.\t{}\n"
    path.write_text("ID\tsentence\tquestion\t1\t2\tAnswer\n" + line.format(3) + line.format(1) + line.format(4))
    with pytest.raises(formats.FormatError, match=r"copa\.tsv:2: Answer is '3'.*\n.*copa\.tsv:4: Answer is '4'"):
        formats.rows_of("kobest-copa", path)


WEATHER = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}


def calling(name: str, arguments: dict, tools: list | None) -> dict:
    call = {"type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    row = {"messages": [{"role": "user", "content": "날씨?"}, answer]}
    return row | ({"tools": tools} if tools else {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (calling("g", {}, [WEATHER]), "calls 'g', which is not among the row's tools (f)"),
        (calling("f", {"b": 1}, [WEATHER]), "f has no argument b"),
        (calling("f", {"a": 1}, None), "no `tools`"),
    ],
)
def test_a_wanted_call_that_no_tool_allows_is_refused(tmp_path: Path, row: dict, reason: str) -> None:
    assert reason in " ".join(refused(write_jsonl(tmp_path / "s.jsonl", [row])))


def test_rows_whose_answer_is_a_call_are_judged_by_calls_whatever_the_suite_says(tmp_path: Path) -> None:
    from upath import UPath

    from llmops_assets.datasets.reading.ingest import ingest

    rows = [calling("f", {"a": 1}, [WEATHER]), {"question": "안녕?", "answer": "네"}]
    path = write_jsonl(tmp_path / "s.jsonl", rows)
    look(path)
    (batch,) = ingest([(path.name, UPath(path))], "eval_suite")
    (call, _), (words, _) = items_and_faults(batch.rows, "s")[0]
    assert call.judge.kind == "calls" and call.tools and words.judge.kind == "exact"
    assert call.judge.right(
        '<tool_call>{"name": "f", "arguments": {"a": 1.0}}</tool_call>', call.references, parser="hermes"
    )


def test_both_commands_refuse_a_suite_with_faults_and_register_nothing(home: Path) -> None:  # noqa: F811
    from llmops_assets.cli import common

    path = write_jsonl(home / "bad.jsonl", [{"question": "괄호", "answer": "(열림"}, {"question": "q", "answer": "x"}])
    for command in (("suite", "add", "s@v1", path, "--judge", "regex"),):
        code, _, error = llmops(*command)
        assert code == 1 and "bad.jsonl:1" in error and "no regular expression" in error.replace("\n", " ")
    choices = write_jsonl(home / "choices.jsonl", [{"question": "q", "choices": ["a", "b"], "answer": 7}])
    code, _, error = llmops("dataset", "add", "d@v1", choices, "--type", "eval_suite")
    assert code == 1 and "choices.jsonl:1" in error
    assert common.wiring().catalog.datasets() == []
    good = write_jsonl(home / "good.jsonl", [{"question": "q", "choices": ["a", "b"], "answer": 1}])
    assert llmops("dataset", "add", "d@v1", good, "--type", "eval_suite")[0] == 0
    assert common.wiring().catalog.dataset("d@v1").suite.judge == "multiple_choice"
    assert llmops("dataset", "add", "d@v1", good, "--type", "eval_suite")[0] == 0
