"""A text that a detector fails on costs its own row, with the reason. A detector that fails on all is an error."""

import json
from pathlib import Path

import polars as pl
import pytest

from llmops_assets.datasets import batches, clean
from llmops_assets.datasets.quality import findings, report
from llmops_assets.datasets.reading.scan import scan
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.privacy import names, pii
from llmops_assets.specs.policy import load_policy
from tests.datasets.test_recorded import planted

find_names = names.find_names
BAD = "도무지 읽을 수 없는 글"


def failing(values: list[str]) -> list[list]:
    if any(BAD in value for value in values):
        raise ValueError("max() arg is an empty sequence")
    return find_names(values)


DETECTOR = pii.Detector(names=failing)


def with_bad_rows(count: int, *bad: int) -> pl.DataFrame:
    rows = planted(count, 4)
    chat = [{"role": "user", "content": BAD}, {"role": "assistant", "content": "그렇습니다. 010-1234-5678"}]
    messages = [chat if number in bad else turns for number, turns in enumerate(rows["messages"].to_list())]
    return rows.with_columns(messages=pl.Series(messages, dtype=rows.schema["messages"]))


@pytest.mark.parametrize("dataset_type", ["sft_pair", "eval_suite"])
def test_a_row_that_a_detector_fails_on_is_left_out_with_the_reason_and_the_others_are_as_without_it(dataset_type):
    rows = with_bad_rows(200, 17, 60)
    bad = [rows["row_id"][17], rows["row_id"][60]]
    found = report.analyse(rows, dataset_type, personal=DETECTOR)
    assert (found.rows, found.scores.height, found.unexamined_rows) == (200, 198, 2)
    assert findings.unexamined(found.findings).rows() == [
        (row, "ValueError: max() arg is an empty sequence") for row in bad
    ]
    others = report.analyse(rows.filter(~pl.col("row_id").is_in(bad)), dataset_type, personal=DETECTOR)
    assert found.spans.equals(others.spans) and found.duplicates.clusters.equals(others.duplicates.clusters)
    work = clean.cleaning(
        rows, dataset_type, clusters=found.duplicates.clusters, scores=found.scores, lowest_score=0.3,
        personal=DETECTOR, spans=found.spans, near=duplicates.Near(), unexamined=findings.unexamined(found.findings),
    )  # fmt: skip
    frame = pl.concat(list(work.frames()))
    assert work.dropped.filter(reason="could not be examined")["row_id"].to_list() == bad
    ids = pl.concat([frame["row_id"], work.dropped["row_id"]])
    assert sorted(ids) == sorted(rows["row_id"]), "every row is kept or dropped, once"


def test_a_row_whose_masked_text_cannot_be_searched_is_left_out():
    def never_masked(values: list[str]) -> list[list]:
        if any("[전화번호]" in value for value in values):
            raise ValueError("no placeholder, please")
        return [[] for _ in values]

    rows = planted(400, 4)
    numbers = rows["messages"].list.eval(pl.element().struct.field("content").str.contains("010-")).list.any()
    rows = pl.concat([rows.filter(~numbers), rows.filter(numbers)[:3]])
    detector = pii.Detector(names=never_masked)
    found = report.analyse(rows, "sft_pair", personal=detector)
    work = clean.cleaning(
        rows, "sft_pair", clusters=found.duplicates.clusters, scores=found.scores, lowest_score=0.0,
        personal=detector, spans=found.spans,
    )  # fmt: skip
    frame = pl.concat(list(work.frames()))
    assert work.dropped_by_reason["could not be examined"] >= 1
    assert "010-" not in json.dumps(frame["messages"].to_list(), ensure_ascii=False)


@pytest.mark.parametrize("count", [40, 5])
def test_a_detector_that_fails_on_everything_is_an_error(count):
    def broken(values: list[str]) -> list[list]:
        raise RuntimeError("its model is missing")

    with pytest.raises(RuntimeError, match="its model is missing"):
        report.analyse(planted(count, 2), "sft_pair", personal=pii.Detector(names=broken))


def test_few_rows_are_gone_through_again():
    calls = []

    def examine(batch: pl.DataFrame) -> int:
        calls.append(batch.height)
        if batch["row_id"].is_in(["00007", "00900"]).any():
            raise ValueError("no")
        return batch.height

    rows = planted(1024, 1)
    assert batches.isolated(examine, rows)[0] == 1022
    assert sum(calls) < 6 * rows.height


def test_a_text_that_cannot_be_searched_is_not_shown():
    shown = pii.mask_texts(pl.Series(["홍길동입니다", BAD, "전화 010-1234-5678"]), DETECTOR)
    assert shown.to_list() == ["[이름]입니다", "[…]", "전화 [전화번호]"]


def test_a_scan_goes_on_and_names_the_row(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(names, "find_names", failing)
    lines = [
        {"prompt": f"질문 {n}: {'가나다라'[n % 4]}의 요금은 얼마인가요?", "completion": f"{n}00원입니다. 감사합니다."}
        for n in range(30)
    ]
    lines[12]["prompt"] = BAD
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    result = scan(str(file), load_policy(), out=tmp_path / "out")
    refused = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text("utf-8").splitlines()]
    assert [(line["line"], line["reason"]) for line in refused] == [
        (13, "it could not be examined: ValueError: max() arg is an empty sequence")
    ]
    assert result.rows == 29 == result.kept + sum(result.dropped.values())
    assert BAD not in (tmp_path / "out" / "clean.jsonl").read_text("utf-8")
