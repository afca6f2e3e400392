"""What is found, kept and divided does not depend on how the rows come in batches."""

import tempfile

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from llmops_assets.datasets import batches, clean, schema, split
from llmops_assets.datasets.quality import report
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.privacy import pii

ANSWERS = (
    "등록은 가까운 영업소에서 신분증을 가지고 오시면 바로 해 드립니다. 수수료는 없습니다.",
    "분실하신 물건은 휴게소 안내소에서 이레 동안 보관합니다. 연락처는 010-1234-5678입니다.",
    "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ",
    "영수증은 누리집의 이용 내역에서 언제든지 다시 출력하실 수 있습니다.",
)


def table(count: int) -> pl.DataFrame:
    asked = [f"질문 {number % 17}: 어디에서 어떻게 하면 되는지 자세히 알려 주세요" for number in range(count)]
    return pl.DataFrame(
        {
            "row_id": [f"r{number:03}" for number in range(count)],
            "messages": [
                [{"role": "user", "content": text}, {"role": "assistant", "content": ANSWERS[number % 7 % 4]}]
                for number, text in enumerate(asked)
            ],
            "tools": None, "source": None,
            "category": [f"c{number % 3}" for number in range(count)], "quality_score": None,
            "extra": [f'{{"user":"u{number % 11}"}}' for number in range(count)], "file": "f.jsonl",
            "line": list(range(1, count + 1)),
        },
        schema=schema.columns_of("sft_pair"),
    )  # fmt: skip


def in_pieces(rows: pl.DataFrame, size: int) -> batches.Batches:
    def pieces(columns: list[str] | None = None):
        some = rows if columns is None else rows.select(columns)
        return (some[start : start + size] for start in range(0, rows.height, size))

    return pieces


def stage(rows: batches.Batches) -> tuple[report.Report, clean.Cleaning, pl.DataFrame, pl.Series]:
    found = report.analyse(rows, "sft_pair")
    work = clean.cleaning(
        rows, "sft_pair", clusters=found.duplicates.clusters, scores=found.scores, lowest_score=0.3,
        personal=pii.PATTERNS_ONLY,
    )  # fmt: skip
    kept = pl.concat(list(work.frames()))
    return found, work, kept, split.assign(batches.of(kept), "sft_pair", group_by="user", seed=3)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_result_does_not_depend_on_the_batches(monkeypatch, size):
    rows = table(120)
    whole = stage(batches.of(rows))
    monkeypatch.setattr(batches, "ROWS", size)
    parts = stage(in_pieces(rows, 5))
    assert whole[0].duplicates.exact > 10 and whole[1].dropped_by_reason["low score"] > 0
    assert_frame_equal(parts[0].duplicates.clusters, whole[0].duplicates.clusters)
    assert_frame_equal(
        parts[0].findings.sort("row_id", "kind", "type"), whole[0].findings.sort("row_id", "kind", "type")
    )
    assert_frame_equal(parts[0].scores, whole[0].scores)
    assert (parts[0].worst, parts[0].statistics) == (whole[0].worst, whole[0].statistics)
    assert_frame_equal(parts[1].dropped.sort("row_id"), whole[1].dropped.sort("row_id"))
    assert_frame_equal(parts[2], whole[2])
    assert parts[3].to_list() == whole[3].to_list()


def test_a_table_without_rows_goes_through():
    found, work, kept, assigned = stage(batches.of(table(0)))
    assert (found.rows, work.kept, kept.height, len(assigned)) == (0, 0, 0, 0)
    assert duplicates.find(table(0), "sft_pair").clusters.height == 0


def test_rows_that_were_put_aside_come_back_and_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows, spill = table(10), batches.Spill()
    spill.add(rows[:4])
    spill.add(rows[4:])
    assert_frame_equal(pl.concat(list(spill(None))), rows)
    assert [frame.columns for frame in spill(["line"])] == [["line"]] * 2
    # Not even while they are there, so a process that is killed leaves none either.
    assert list(tmp_path.iterdir()) == []
    spill.close()
    with pytest.raises(ValueError, match="closed"):
        list(spill(None))
