"""No row is lost for what it shares with others: what is to be learned from it decides, and a slip makes no new row."""

import random
import unicodedata

import polars as pl
import pytest

from benchmarks.distinct_rows import kinds
from llmops_assets.datasets import clean, schema
from llmops_assets.datasets.quality import page, report
from llmops_assets.datasets.similarity import duplicates as d
from llmops_assets.datasets.similarity import examples
from llmops_assets.records.datasets import CleanRecord


def table(dataset_type: str, rows: list) -> pl.DataFrame:
    ids = pl.Series("row_id", [f"r{number}" for number in range(len(rows))], dtype=pl.String)
    if dataset_type == "pretrain_corpus":
        return pl.DataFrame({"row_id": ids, "text": rows})
    tools = pl.Series("tools", [None] * len(rows), dtype=pl.String)
    return pl.DataFrame({"row_id": ids, "messages": pl.Series(rows, dtype=schema.MESSAGES), "tools": tools})


def dropped(rows: list, dataset_type: str = "sft_pair", how: d.Near | None = None) -> list[int]:
    found = d.find(table(dataset_type, rows), dataset_type, how).clusters
    return [int(row_id[1:]) for row_id in found.filter(~pl.col("kept"))["row_id"]]


def asks(*pairs: tuple[str, str], before: str = "") -> list:
    return [
        [{"role": "user", "content": before + asked}, {"role": "assistant", "content": answered}]
        for asked, answered in pairs
    ]


@pytest.mark.parametrize("count", [3, 12, 120])
def test_rows_that_share_much_and_say_different_things_are_all_kept(count):
    for name, dataset_type, rows in kinds(20_261_130 + count, count):
        assert dropped(rows, dataset_type) == [], name


LONG = (
    "고객센터 상담원이 접수한 내용을 담당 부서에 전달하면 담당자가 순서대로 확인한 다음 "
    "처리 결과를 문자로 알려 드리고 있습니다"
)


def test_rows_that_offer_other_tools_or_make_other_calls_are_kept():
    def row(city: str) -> list:
        arguments = f'[{{"type":"function","function":{{"name":"weather","arguments":{{"city":"{city}"}}}}}}]'
        return [
            {"role": "user", "content": "우리 동네 날씨가 어떤지 알려 줄래요?"},
            {"role": "assistant", "content": "", "tool_calls": arguments},
        ]

    assert dropped([row("Seoul"), row("Busan"), row("Seoul")]) == [2]
    same = asks(("오늘 비가 오나요?", "아니요, 맑습니다."), ("오늘 비가 오나요?", "아니요, 맑습니다!"))
    tools = ['[{"type":"function","function":{"name":"weather"}}]', '[{"type":"function","function":{"name":"rain"}}]']
    found = d.find(table("sft_pair", same).with_columns(tools=pl.Series(tools)), "sft_pair")
    assert found.clusters.height == 0


def test_one_answer_that_was_judged_otherwise_is_another_row():
    prompt = [{"role": "user", "content": "환불은 언제 되나요?"}]
    completion = [{"role": "assistant", "content": "접수하신 날로부터 영업일 기준 며칠 안에 처리됩니다."}]
    rows = pl.DataFrame(
        {
            "row_id": ["r0", "r1", "r2"],
            "prompt": pl.Series([prompt] * 3, dtype=schema.MESSAGES),
            "completion": pl.Series([completion] * 3, dtype=schema.MESSAGES),
            "tools": pl.Series([None] * 3, dtype=pl.String),
            "label": [True, False, True],
        }
    )
    assert d.find(rows, "kto").clusters["row_id"].to_list() == ["r0", "r2"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3월 5일", "3월 6일"),
        ("예약이 가능합니다", "예약이 불가능합니다"),
        ("예약이 됩니다", "예약이 안 됩니다"),
        ("요금이 1,000원입니다", "요금이 10,000원입니다"),
        ("오전에 처리됩니다", "오후에 처리됩니다"),
        ("상행 휴게소입니다", "하행 휴게소입니다"),
        ("담당자는 김서준 과장입니다", "담당자는 김서진 과장입니다"),
        ("담당 지점은 서울입니다", "담당 지점은 부산입니다"),
        ("한 명이 갑니다", "세 명이 갑니다"),
        ("이십만 원입니다", "삼십만 원입니다"),
        ("값은 a+b입니다", "값은 a-b입니다"),
        ("버전 1.2를 씁니다", "버전 12를 씁니다"),
        ("C 언어로 씁니다", "C++ 언어로 씁니다"),
        ("it is allowed", "it is not allowed"),
        ("the prices increase", "the prices decrease"),
        ("기분은 😀 입니다", "기분은 😢 입니다"),
    ],
)
def test_a_fact_in_an_answer_or_in_a_question_makes_two_rows(one, other):
    in_answers = asks(("무엇을 알려 주나요?", f"{LONG}. {one}."), ("무엇을 알려 주나요?", f"{LONG}. {other}."))
    in_questions = asks(
        (f"{LONG}. {one}. 맞나요?", "네, 그렇습니다."), (f"{LONG}. {other}. 맞나요?", "네, 그렇습니다.")
    )
    assert dropped(in_answers) == [] == dropped(in_questions)
    documents = [f"{LONG}. {one}.", f"{LONG}. {other}."]
    assert dropped(documents, "pretrain_corpus") == []


@pytest.mark.parametrize(
    "other",
    [
        "환불은 언제 되나요",
        "환불은언제 되나요?",
        "  환불은  언제\n되나요?!",
        "“환불은 언제 되나요?”",
        unicodedata.normalize("NFD", "환불은 언제 되나요?"),
        "환불은 언제 되나요\u200b?",
        "환불은 언제 되나요?",
    ],
)
def test_spaces_punctuation_case_and_normal_form_make_no_new_row(other):
    assert dropped(asks(("환불은 언제 되나요?", "OK, 3일."), (other, "ok 3일"))) == [1]


@pytest.mark.parametrize(
    ("one", "other"), [("3 5", "35"), ("1.5", "15"), (".5", "5"), ("3+5", "3-5"), ("1:30", "130"), ("x > 3", "x < 3")]
)
def test_punctuation_between_digits_is_no_punctuation(one, other):
    assert dropped(asks((f"답이 {one} 인가요", "네"), (f"답이 {other} 인가요", "네"))) == []


def test_a_syllable_typed_twice_and_a_page_that_one_copy_counts_are_no_facts():
    twice = asks(
        (f"{LONG}. 맞나요?", "네, 부탁드립니다. 고맙습니다."), (f"{LONG}. 맞나요?", "네, 부부탁드립니다. 고맙습니다.")
    )
    assert dropped(twice) == [1]
    assert dropped([f"{LONG}. 끝.", f"{LONG}. 끝. 붙임 1."], "pretrain_corpus") == [1]


def test_rows_shorter_than_a_shingle_are_compared_whole():
    assert dropped(asks(("a", "b"), ("a", "c"), ("d", "b"), ("A", "B"), ("ㄱ", "ㄴ"))) == [3]


def test_the_same_question_with_other_answers_and_one_answer_to_other_questions_are_kept():
    rows = asks(("수도는 어디?", "서울"), ("수도는 어디?", "부산"), ("가도 되나요?", "네."), ("와도 되나요?", "네."))
    assert dropped(rows) == []


def test_slips_under_shared_text_are_found_however_many_share_it():
    for name, dataset_type, rows in kinds(20_261_131, 120):
        if name not in ("the same licence paragraph", "a question, then its passage in lines"):
            continue
        rng, copies = random.Random(5), []
        for row in rows[:20]:
            text = row if isinstance(row, str) else row[0]["content"]
            at = text.index("에서", len(text) // 2)
            text = text[:at] + rng.choice("갸먀뱌샤챠탸햐얘") + text[at + 1 :]
            copies.append(text if isinstance(row, str) else [{**row[0], "content": text}, *row[1:]])
        found = dropped(rows + copies, dataset_type)
        assert set(found) <= set(range(len(rows), len(rows) + 20)) and len(found) >= 19, name


def test_a_large_family_of_copies_is_one_cluster():
    rows = [row for _, type_, made in kinds(7, 20) if type_ == "pretrain_corpus" for row in made]
    text = " ".join(rows[:3])
    syllables = [at for at, char in enumerate(text) if "가" <= char <= "힣" and "가" <= text[at - 1] <= "힣"]
    copies = [text[:at] + "갸" + text[at + 1 :] for at in syllables[:: len(syllables) // 150]]
    found = d.find(table("pretrain_corpus", [text, *copies]), "pretrain_corpus")
    assert len(copies) >= 150 and found.near >= 0.99 * len(copies) and found.count == 1


def test_documents_that_differ_in_facts_alone_are_kept_or_dropped_as_the_policy_says():
    reports = next(rows for name, _, rows in kinds(3, 12) if name.startswith("reports"))
    assert dropped(reports, "pretrain_corpus") == []
    assert dropped(reports, "pretrain_corpus", d.Near(facts="drop")) == list(range(1, len(reports)))
    # A shared licence is no fact: what stands under it is another text.
    licences = next(rows for name, _, rows in kinds(3, 12) if "licence paragraph" in name)
    assert dropped(licences, "pretrain_corpus", d.Near(facts="drop")) == []
    # Questions are two questions whatever the policy says of documents.
    sums = next(rows for name, _, rows in kinds(3, 12) if name == "other numbers")
    assert dropped(sums, "sft_pair", d.Near(facts="drop")) == []


def test_what_kept_pairs_apart_that_are_as_alike_as_duplicates_is_counted():
    rows = asks(("무엇을 알려 주나요?", f"{LONG} 서울입니다."), ("무엇을 알려 주나요?", f"{LONG} 부산입니다."))
    assert d.find(table("sft_pair", rows), "sft_pair").apart == {"another word": 1}


def test_the_page_shows_what_was_dropped_beside_what_stays_and_what_many_rows_share():
    head = "누리시 도서관 안내입니다. 아래 물음을 읽고 존댓말로 짧게 답하되 전화번호는 되풀이하지 마세요. 물음: "
    things = ("역사", "과학", "요리", "여행", "음악", "건축")
    answers = [f"{thing} 책은 {floor}층 안쪽 서가에 있습니다." for floor, thing in enumerate(things, 1)]
    rows = asks(
        *((f"{thing} 책은 어디에 있나요?", text) for thing, text in zip(things, answers, strict=True)), before=head
    )
    rows += [rows[0], [rows[1][0], {**rows[1][1], "content": "과학 책은 2층 안쪽 셔가에 있습니다."}]]
    rows += asks(("환불은 언제 되나요?", "3일 뒤"), ("환불은 언제 되나요", "3일 뒤."))
    whole = table("sft_pair", rows).with_columns(
        source=pl.lit(None, pl.String), category=pl.lit(None, pl.String), quality_score=pl.lit(None, pl.Float64),
        extra=pl.lit("{}"), file=pl.lit("f.jsonl"), line=pl.int_range(1, len(rows) + 1),
    )  # fmt: skip
    found = report.analyse(whole.select(list(schema.columns_of("sft_pair"))), "sft_pair")
    shown = {line["dropped"]["where"]: line for line in found.dropped_pairs}
    assert {name: (line["kept"]["where"], line["rule"]) for name, line in shown.items()} == {
        "f.jsonl:7": ("f.jsonl:1", examples.EXACT),
        "f.jsonl:8": ("f.jsonl:2", examples.NEAR),
        "f.jsonl:10": ("f.jsonl:9", examples.BARE),
    }
    slip = shown["f.jsonl:8"]
    assert slip["differences"] == ["서가에 → 셔가에"] and 0.8 <= slip["similarity"] < 1 and 0.4 < slip["shared"] < 1
    assert any(line["rows"] == 8 and "존댓말로 짧게 답하되" in line["text"] for line in found.shared_text)
    html = page.html("desk@v1", "sft_pair", found)
    assert "서가에 → 셔가에" in html and "Text that many rows share" in html and "alike but for slips" in html


def test_more_near_duplicates_than_the_policy_allows_block_with_advice():
    def record(rows: int, **reasons: int) -> CleanRecord:
        named = {name.replace("_", " "): count for name, count in reasons.items()}
        return CleanRecord(
            dataset="d@v1", type="sft_pair", manifest="m", dropped="d", rows=rows, dropped_by_reason=named,
            masked_by_type={}, content_hash="h",
        )  # fmt: skip

    assert clean.duplicate_share(record(50, near_duplicate=50), 0.5).passed
    assert clean.duplicate_share(record(10, exact_duplicate=90), 0.5).passed
    judged = clean.duplicate_share(record(40, near_duplicate=55, low_score=5), 0.5)
    assert not judged.passed and "55 of 100" in judged.text and "max_duplicate_share" in judged.text


def test_a_place_that_stands_in_question_and_answer_is_no_slip():
    cities = ["서울", "부산", "대구", "인천", "광주", "대전", "울산", "세종", "수원", "창원"]
    asked, answered = "{} 지역의 쓰레기 배출 요일을 알려 주세요.", "{} 지역은 월요일과 목요일 저녁 8시부터 배출합니다."
    assert dropped(asks(*((asked.format(city), answered.format(city)) for city in cities))) == []


def test_a_misspelling_that_stands_in_two_places_is_a_slip():
    asked = "환불이 언제 {0}나요? 영업일 기준으로 사흘이 지나면 {0}나요? 알려 주세요"
    answered = (
        "네, 영업일 기준 사흘 안에 처리해 드립니다. 카드로 내신 분은 카드사마다 하루나 이틀이 더 걸릴 수 있으니, "
        "그 뒤에도 보이지 않으면 영수증을 가지고 가까운 영업소나 휴게소 특판장으로 오시거나 연락해 주시면 "
        "바로 확인해 드리겠습니다."
    )
    assert dropped(asks(*((asked.format(word), answered) for word in ("되", "돼")))) == [1]
