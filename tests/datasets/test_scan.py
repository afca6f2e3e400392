"""A scan tells what is in any file, needs no platform, and never falls over what it is given."""

import gzip
import json
import os
import subprocess
import sys

import pytest

from llmops_assets.datasets.reading.recognise import type_of_row
from llmops_assets.datasets.reading.scan import ScanError, scan
from llmops_assets.specs.policy import load_policy


@pytest.fixture(scope="module")
def policy():
    rules = load_policy()
    plain = rules.datasets.pii.model_copy(update={"names": False})
    return rules.model_copy(update={"datasets": rules.datasets.model_copy(update={"pii": plain})})


def chat(asked: str, answered: str, **more) -> str:
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return json.dumps({"messages": turns, **more}, ensure_ascii=False)


ANSWER = "등록은 가까운 영업소나 휴게소 특판장에서 신분증과 차량등록증을 가지고 오시면 바로 해 드립니다."
ASKED = "하이패스 단말기를 새로 샀는데 등록은 어디에서 하면 되는지 알려 주세요"
LINES = [
    chat(
        "하이패스 단말기를 새로 샀는데 등록은 어디에서 하면 되는지 알려 주세요", ANSWER, metadata={"category": "hipass"}
    ),
    chat("환불은 언제 되나요? 제 번호는 010-1234-5678입니다.", "영업일 기준 사흘 안에 환불됩니다."),
    '{"messages": [{"role": "user", "content": 5}, {"role": "assistant", "content": "전화 010-9876-5432"}]}',
    chat(ASKED + "요", ANSWER),
    chat(ASKED, ANSWER),
    '{"messages": [{"role": "user", "con',
    chat("웃기는 이야기 하나만 해 주세요", "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ"),
]


def written(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_needs_no_platform_and_writes_what_it_found(tmp_path):
    (tmp_path / "desk.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    home = tmp_path / "home"
    program = (
        "import sys; from llmops_assets.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    bad = [m for m in ('dagster', 'mlflow', 'torch', 'sqlalchemy') if m in sys.modules]\n"
        "    print('imported', bad, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "dataset", "scan", "desk.jsonl", "--json", "--out", "out"],
        cwd=tmp_path, env={**os.environ, "LLMOPS_HOME": str(home)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "imported []" in done.stderr
    assert not home.exists() and not (tmp_path / ".llmops").exists()
    figures = json.loads(done.stdout)
    assert (figures["type"], figures["rows"], figures["quarantined"], figures["kept"]) == ("sft_pair", 5, 2, 2)
    assert figures["pii"] == {"PHONE_NUMBER": 1}
    assert figures["duplicates"] == {"exact": 1, "near": 1, "clusters": 1}
    assert figures["dropped"] == {"exact duplicate": 1, "low score": 1, "near duplicate": 1}
    assert figures["scores"]["below_limit"] == 1
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "clean.jsonl", "duplicates.jsonl", "quarantine.jsonl", "report.html",
    ]  # fmt: skip
    clean = written(out / "clean.jsonl")
    assert [row["metadata"]["line"] for row in clean] == [1, 2]
    assert clean[0]["metadata"]["category"] == "hipass"
    assert clean[1]["messages"][0]["content"] == "환불은 언제 되나요? 제 번호는 [전화번호]입니다."
    assert clean[1]["metadata"]["changes"] == "PHONE_NUMBER 1"
    assert [cluster["rows"] for cluster in written(out / "duplicates.jsonl")] == [[1, 4, 5]]
    refused = written(out / "quarantine.jsonl")
    assert [(row["line"], row["field"]) for row in refused] == [(3, "messages[0].content"), (6, "")]
    everything = "".join(path.read_text() for path in out.iterdir())
    assert "010-1234-5678" not in everything and "010-9876-5432" not in everything


def test_what_was_cleaned_can_be_scanned_again_and_nothing_is_left_to_clean(tmp_path, policy):
    (tmp_path / "desk.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    first = scan(str(tmp_path / "desk.jsonl"), policy, out=tmp_path / "out")
    again = scan(str(tmp_path / "out" / "clean.jsonl"), policy)
    assert (again.rows, again.kept, again.quarantine.height) == (first.kept, first.kept, 0)
    assert again.report.pii == {} and again.dropped == {}


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_file_has_no_rows_and_is_no_error(tmp_path, policy, content):
    (tmp_path / "empty.jsonl").write_text(content, encoding="utf-8")
    found = scan(str(tmp_path / "empty.jsonl"), policy, out=tmp_path / "out").summary()
    assert (found["rows"], found["quarantined"], found["kept"], found["type"]) == (0, 0, 0, None)
    assert written(tmp_path / "out" / "clean.jsonl") == []


def test_bad_rows_are_no_error_and_a_file_of_noise_is_one(tmp_path, policy):
    (tmp_path / "bad.jsonl").write_text('{"messages": 5}\n{"messages": []}\n')
    found = scan(str(tmp_path / "bad.jsonl"), policy)
    assert (found.rows, found.quarantine.height, found.recognised) == (0, 2, True)
    (tmp_path / "noise.jsonl").write_bytes(bytes(range(128, 256)) * 20)
    (tmp_path / "what.jsonl").write_text('{"colour": "red"}\n')
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(LINES[0].encode())[:20])
    for name, reason in (
        ("noise.jsonl", "nothing in .*noise.jsonl can be read.*UTF-8"),
        ("what.jsonl", "tells what type it is.*colour.*--map"),
        ("cut.jsonl.gz", "damaged or ends early"),
        ("none.jsonl", "there is no file"),
    ):
        with pytest.raises(ScanError, match=reason):
            scan(str(tmp_path / name), policy)
    with pytest.raises(ScanError, match="nothing in"):
        scan(str(tmp_path / "noise.jsonl"), policy, dataset_type="sft_pair")


def test_a_folder_is_one_dataset_and_columns_can_be_mapped(tmp_path, policy):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text(
        "물음,응답\n환불은 언제 되나요?,영업일 기준 사흘 안에 환불됩니다.\n", encoding="utf-8"
    )
    (folder / "b.csv").write_text(
        "물음,응답\n환불은 언제 되나요?,영업일 기준 사흘 안에 환불됩니다.\n", encoding="utf-8"
    )
    found = scan(str(folder), policy, mapping={"prompt": "물음", "completion": "응답"}, out=tmp_path / "out")
    assert (found.type, found.rows, found.kept) == ("sft_pair", 2, 1)
    (cluster,) = written(tmp_path / "out" / "duplicates.jsonl")
    assert [(m["file"], m["line"], m["kept"]) for m in cluster["members"]] == [("a.csv", 2, True), ("b.csv", 2, False)]


def test_rows_over_the_length_are_named(tmp_path, policy):
    (tmp_path / "desk.jsonl").write_text("\n".join(LINES[:2]), encoding="utf-8")
    found = scan(
        str(tmp_path / "desk.jsonl"), policy, max_tokens=40, tokens=lambda texts: texts.str.len_chars().to_numpy()
    )
    long = found.report.findings.filter(kind="length")
    assert long["line"].to_list() == [1, 2] and found.summary()["too_long"] == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("messages", "sft_pair"),
        ("conversations chosen rejected", "rlhf_pair"),
        ("conversations tools", "sft_pair"),
        ("instruction input output", "sft_pair"),
        ("Q A label", "sft_pair"),
        ("question answer positives negatives", "rag_qa"),
        ("query answer", "sft_pair"),
        ("query positive negative", "embedding_pair"),
        ("sentence1 sentence2 score", "embedding_pair"),
        ("text", "pretrain_corpus"),
        ("id url", None),
    ],
)
def test_the_type_is_told_by_the_fields(fields, expected):
    assert type_of_row(dict.fromkeys(fields.split(), "x")) == expected
