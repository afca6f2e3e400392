"""Personal data and near duplicates are looked for once and recorded; whoever uses the record finds the same."""

import itertools
import random
from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from upath import UPath

from llmops_assets.datasets import batches, clean, schema
from llmops_assets.datasets.quality import personal_data, report
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.privacy import names, pii
from llmops_assets.privacy.pseudonyms import Pseudonyms
from tests.conftest import PUBLIC_DATA

NEAR = duplicates.Near()
WORDS = (
    "접수", "절차", "확인", "서류", "창구", "결제", "정산", "카드", "현금", "고지서",
    "할인", "감면", "등록", "변경", "해지", "교환",
    "반품", "수리", "설치", "점검", "배송", "조회",
)  # fmt: skip


def personal(rng: random.Random) -> str:
    """A sentence with somebody's data, whose masked form is the same as that of others'."""
    number = f"010-{rng.randrange(2000, 9999)}-{rng.randrange(1000, 9999)}"
    mail = f"{''.join(rng.choices('abcdefgh', k=6))}@example.com"
    return rng.choice(
        [f"제 번호는 {number}입니다.", f"메일은 {mail}이고 전화는 {number}입니다.", f"홍길동입니다, {number}."]
    )


def planted(count: int, seed: int) -> pl.DataFrame:
    """Chats of which some repeat others exactly, nearly, or but for the personal data in them."""
    rng = random.Random(seed)
    made: list[tuple[str, str]] = []
    for _ in range(count):
        kind = rng.random()
        asked, answered = rng.choice(made) if made and kind < 0.5 else (" ".join(rng.choices(WORDS, k=14)), "")
        if kind < 0.1 and made:
            pass
        elif kind < 0.3 and made:
            at = rng.randrange(len(answered))
            answered = answered[:at] + rng.choice("가나다") + answered[at + 1 :]
        elif kind < 0.5 and made:
            asked = asked.partition(" || ")[0] + " || " + personal(rng)
        else:
            answered = " ".join(rng.choices(WORDS, k=18)) + (f" {personal(rng)}" if rng.random() < 0.3 else "")
        made.append((asked, answered))
    extra = ['{"phone":"010-1234-5678","user":"u1"}', '{"name":"홍길동"}', "{}", '{"note":["메일 a@example.com"]}']
    return pl.DataFrame(
        {
            "row_id": [f"{number:05}" for number in range(count)],
            "messages": [
                [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
                for asked, answered in made
            ],
            "tools": None, "source": None, "category": None, "quality_score": None,
            "extra": [extra[number % 7] if number % 7 < 4 else "{}" for number in range(count)],
            "file": "f.jsonl", "line": list(range(1, count + 1)),
        },
        schema=schema.columns_of("sft_pair"),
    )  # fmt: skip


DETECTORS = {
    "mask": pii.PATTERNS_ONLY,
    "names": pii.Detector(names=names.find_names),
    "drop": pii.Detector(mode="drop"),
    "pseudonymise": pii.Detector(mode="pseudonymise", pseudonyms=Pseudonyms("desk", b"0123456789abcdef")),
}


def cleaned(rows, dataset_type, detector, found, *, recorded: bool):
    work = clean.cleaning(
        rows, dataset_type, clusters=found.duplicates.clusters, scores=found.scores, lowest_score=0.3,
        personal=detector, spans=found.spans if recorded else None, near=NEAR,
    )  # fmt: skip
    return work, pl.concat(list(work.frames()))


def public(name: str, dataset_type: str) -> pl.DataFrame:
    path = PUBLIC_DATA / name
    assert path.exists(), f"{path} is missing: LLMOPS_TEST_DATA names the folder of the public data"
    return pl.concat([batch.rows for batch in ingest([(name, UPath(path))], dataset_type)])


def same_as_searched(rows: pl.DataFrame, dataset_type: str, detector: pii.Detector) -> pl.DataFrame:
    """The clean rows, after proving that cleaning by the record gives what looking again gives."""
    found = report.analyse(rows, dataset_type, personal=detector, near=NEAR)
    work, frame = cleaned(rows, dataset_type, detector, found, recorded=True)
    searched, other = cleaned(rows, dataset_type, detector, found, recorded=False)
    assert_frame_equal(frame, other)
    assert_frame_equal(work.dropped, searched.dropped)
    assert (work.masked, work.masked_rows, work.kept) == (searched.masked, searched.masked_rows, searched.kept)
    clusters = work.clusters_left(batches.of(frame))
    assert_frame_equal(clusters, duplicates.find(frame, dataset_type, NEAR).clusters)
    left = list(personal_data.find_left(batches.of(frame), dataset_type, detector, batches.of(rows), found.spans))
    assert pl.concat([batch for batch, _ in left])["row_id"].to_list() == frame["row_id"].to_list()
    assert sum(spans.height for _, spans in left) == 0
    assert personal_data.find_in_rows(frame, dataset_type, detector).height == 0
    return clusters


@pytest.mark.parametrize("mode", DETECTORS)
@pytest.mark.parametrize("dataset_type", ["sft_pair", "eval_suite"])
def test_planted_data_is_cleaned_by_the_record_as_by_a_search(mode, dataset_type, monkeypatch):
    monkeypatch.setattr(batches, "ROWS", 64)
    found = [same_as_searched(planted(400, seed), dataset_type, DETECTORS[mode]) for seed in range(3)]
    # Masking made neighbours of rows that were none, so there is something to agree on; stand-ins of several persons
    # are as different as the persons were, and a row with one goes or stays.
    alike = any(clusters.height for clusters in found)
    assert alike or mode == "drop" or (mode == "pseudonymise" and dataset_type == "sft_pair")


def test_rows_without_personal_data_keep_their_recorded_clusters():
    rows = planted(300, 3).with_columns(extra=pl.lit("{}"))
    bare = rows.filter(
        ~pl.col("messages").list.eval(pl.element().struct.field("content").str.contains("[0-9@]")).list.any()
    )
    assert bare.height > 100
    for dataset_type in ("sft_pair", "eval_suite"):
        clusters = same_as_searched(bare, dataset_type, pii.PATTERNS_ONLY)
        assert bool(clusters.height) == (dataset_type == "eval_suite")


PUBLIC = [
    ("llamafactory/alpaca_en_demo.json", "sft_pair"),
    ("llamafactory/dpo_zh_demo.json", "rlhf_pair"),
    ("llamafactory/c4_demo.jsonl", "pretrain_corpus"),
    ("klue/klue-sts-v1.1_dev.json", "embedding_pair"),
    ("songys-chatbot/ChatbotData.csv", "sft_pair"),
]


@pytest.mark.public_data
@pytest.mark.parametrize(("name", "dataset_type"), PUBLIC)
def test_public_data_is_cleaned_by_the_record_as_by_a_search(name, dataset_type):
    same_as_searched(public(name, dataset_type), dataset_type, pii.PATTERNS_ONLY)


def test_each_text_is_searched_once_and_what_was_masked_once_more_to_mask_and_once_to_prove():
    searched: list[str] = []

    def counting(values: list[str]) -> list[list]:
        searched.extend(values)
        return [[] for _ in values]

    rows = planted(200, 5)
    detector = pii.Detector(names=counting)
    found = report.analyse(rows, "sft_pair", personal=detector, near=NEAR)
    distinct = {text for text in personal_data.all_texts(rows, "sft_pair").filter(pl.col("column") != "extra")["text"]}
    assert distinct <= set(searched)
    searched.clear()
    _, frame = cleaned(rows, "sft_pair", detector, found, recorded=True)
    assert searched and all("[" in text for text in searched), "only what a placeholder stands in"
    searched.clear()
    list(personal_data.find_left(batches.of(frame), "sft_pair", detector, batches.of(rows), found.spans))
    assert searched and all("[" in text for text in searched)


def content(text: str) -> pl.Expr:
    return pl.lit([{"role": "user", "content": "무엇인가요"}, {"role": "assistant", "content": text}], schema.MESSAGES)


@pytest.mark.parametrize("size", [7, 8192])
def test_the_check_is_a_proof_whatever_was_done_to_the_rows(size, monkeypatch):
    """A masked text put back, a text that was changed, metadata, a row that was never brought, another order."""
    monkeypatch.setattr(batches, "ROWS", size)
    rows = planted(120, 8)
    found = report.analyse(rows, "sft_pair", near=NEAR)
    _, frame = cleaned(rows, "sft_pair", pii.PATTERNS_ONLY, found, recorded=True)
    masked = found.spans.filter(pl.col("column") != "extra")["row_id"].unique()
    touched = frame.filter(pl.col("row_id").is_in(masked.implode()))["row_id"][0]
    untouched = frame.filter(~pl.col("row_id").is_in(found.spans["row_id"].implode()))["row_id"][3]
    as_brought = rows.select("row_id", pl.col("messages").alias("was"))
    number = content("제 번호는 010-9999-1234입니다.")

    def at(row_id: str, **changes: pl.Expr) -> pl.DataFrame:
        return frame.with_columns(
            **{name: pl.when(pl.col("row_id") == row_id).then(to).otherwise(name) for name, to in changes.items()}
        )

    put_back = frame.join(as_brought, on="row_id", how="left", maintain_order="left")
    put_back = put_back.with_columns(messages=pl.when(pl.col("row_id") == touched).then("was").otherwise("messages"))
    wrong = {
        "put back": put_back.drop("was"),
        "changed": at(untouched, messages=number),
        "metadata": at(untouched, extra=pl.lit('{"phone":"010-9999-1234"}')),
        "never brought": pl.concat([frame, frame[:1].with_columns(row_id=pl.lit("new"), messages=number)]),
        "in another order": at(untouched, messages=number).reverse(),
    }
    for name, table in wrong.items():
        left = personal_data.find_left(batches.of(table), "sft_pair", pii.PATTERNS_ONLY, batches.of(rows), found.spans)
        everywhere = list(itertools.chain(left))
        assert sum(batch.height for batch, _ in everywhere) == table.height, name
        spans = [
            (batch["row_id"][row], column, type_)
            for batch, some in everywhere
            for row, column, type_ in some.select("row", "column", "type").iter_rows()
        ]
        full = personal_data.find_in_rows(table, "sft_pair")
        expected = [
            (table["row_id"][row], column, type_) for row, column, type_ in full.select("row", "column", "type").rows()
        ]
        assert expected and sorted(spans) == sorted(expected), name


def test_detectors_that_find_the_same_have_one_identity():
    mask = pii.Detector()
    assert mask.identity == replace(mask, placeholders={"PERSON": "*"}, mode="drop").identity
    assert len({mask.identity, DETECTORS["names"].identity, replace(mask, patterns=mask.patterns[1:]).identity}) == 3


def test_the_score_of_a_pair_is_kept_by_cleaning_and_is_no_score_of_quality():
    pairs = [
        ("길이 막혀서 늦게 도착했다.", "도로가 막혀 늦었다.", 0.84),
        ("오늘은 비가 온다.", "어제 산에 다녀왔다.", 0.1),
    ]
    rows = pl.DataFrame(
        {
            "row_id": ["r0", "r1"],
            "anchor": [one for one, _, _ in pairs],
            "positives": [[other] for _, other, _ in pairs],
            "negatives": pl.Series([[], []], dtype=pl.List(pl.String)),
            "score": [score for _, _, score in pairs],
            "source": None, "category": None, "quality_score": None, "extra": "{}", "file": "f.jsonl", "line": [1, 2],
        },
        schema=schema.columns_of("embedding_pair"),
    )  # fmt: skip
    found = report.analyse(rows, "embedding_pair", near=NEAR)
    _, frame = cleaned(rows, "embedding_pair", pii.PATTERNS_ONLY, found, recorded=True)
    assert frame["score"].to_list() == [0.84, 0.1]
    assert frame["quality_score"].to_list() == found.scores["score"].to_list()
