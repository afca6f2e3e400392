"""Equal and nearly equal rows are found, all of them and no others, and one answer to many questions is neither."""

import random

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from llmops_assets.datasets import schema
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.similarity import duplicates as d
from llmops_assets.datasets.similarity import sketch
from tests.conftest import PUBLIC_DATA


def chats(*pairs: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": [f"r{number}" for number in range(len(pairs))],
            "messages": [
                [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
                for asked, answered in pairs
            ],
            "tools": None,
        },
        schema={"row_id": pl.String, "messages": schema.MESSAGES, "tools": pl.String},
    )


def documents(*texts: str) -> pl.DataFrame:
    return pl.DataFrame({"row_id": [f"r{i}" for i in range(len(texts))], "text": list(texts)})


def grams(text: str, size: int = 5) -> set[str]:
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def shingle(gram: str) -> int:
    """The hash of one gram, by the formula in plain Python."""
    value = 0
    for char in gram.ljust(5, "\0"):
        value = (value ^ ord(char)) * 0x9E3779B97F4A7C15 % 2**64
        value ^= value >> 29
    return value >> 32


def similarity(a: str, b: str) -> float:
    return len(grams(a) & grams(b)) / len(grams(a) | grams(b))


def test_signatures_are_those_of_datasketch():
    texts = pl.Series(["통행료는 얼마인가요", "how much is the toll?", "가", ""])
    signatures = sketch.signatures(texts, 5, 128)
    for number, text in enumerate(texts):
        theirs = MinHash(128, seed=1, hashfunc=lambda value: value)
        theirs.update_batch([shingle(gram) for gram in grams(text)])
        assert (theirs.hashvalues == signatures[number]).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(alphabet="가나다ab 😀", max_size=40), min_size=2, max_size=8))
def test_the_similarity_is_that_of_the_sets_of_character_grams(texts):
    pairs = np.array([(a, b) for a in range(len(texts)) for b in range(a + 1, len(texts))], dtype=np.int32)
    assert sketch.jaccard(sketch.buffers(pl.Series(texts)), pairs, 5) == pytest.approx(
        [similarity(texts[a], texts[b]) for a, b in pairs]
    )


def edited(text: str, edits: int, rng: random.Random) -> str:
    for _ in range(edits):
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice("가나다라마바사") + text[at + 1 :]
    return text


def test_near_duplicates_are_all_found_and_no_others():
    rng = random.Random(3)
    originals = ["".join(rng.choices("가각간갈감갑강거건걸검겁고곡곤골공 ", k=220)) for _ in range(400)]
    texts = [version for text in originals for version in (text, *(edited(text, n, rng) for n in (1, 3, 6)))]
    pairs, found = d.near_pairs(pl.Series(texts), d.Near())
    truth = {
        (4 * family + a, 4 * family + b)
        for family in range(400)
        for a in range(4)
        for b in range(a + 1, 4)
        if similarity(texts[4 * family + a], texts[4 * family + b]) >= 0.8
    }
    got = {tuple(pair) for pair in pairs.tolist()}
    assert got <= truth, "every pair is verified"
    assert len(got) >= 0.99 * len(truth)
    assert (found >= 0.8).all()


def test_exact_repeats_are_found_whatever_their_case_and_spaces():
    found = d.find(documents("Hello  World again", "안녕하세요 여러분", "hello world again "), "pretrain_corpus")
    assert found.clusters.to_dicts() == [
        {"row_id": "r0", "cluster": "r0", "kept": True, "exact": False},
        {"row_id": "r2", "cluster": "r0", "kept": False, "exact": True},
    ]
    assert (found.exact, found.near) == (1, 0)


ANSWER = (
    "하이패스 단말기는 가까운 영업소나 휴게소의 특판장에서 등록하실 수 있으며, 신분증과 차량등록증이 필요합니다. "
    "자세한 것은 누리집을 보세요."
)


def test_one_answer_to_different_questions_is_no_duplicate():
    found = d.find(chats(("단말기 등록은 어디서 하죠?", ANSWER), ("무엇을 가져가야 하나요?", ANSWER)), "sft_pair")
    assert found.clusters.height == 0


def test_a_question_with_a_slip_of_the_finger_is_one():
    asked = "하이패스 단말기를 새로 샀는데 등록은 어디에서 하면 되는지 알려 주세요"
    found = d.find(chats((asked, ANSWER), (asked + "요", ANSWER), ("딴 질문입니다", "딴 답입니다")), "sft_pair")
    assert found.clusters["row_id"].to_list() == ["r0", "r1"]
    assert (found.exact, found.near) == (0, 1)


def test_the_same_question_with_another_answer_is_no_duplicate():
    found = d.find(chats(("등록은 어디서?", ANSWER), ("등록은 어디서?", "모릅니다. 다른 곳에 물어보세요.")), "sft_pair")
    assert found.clusters.height == 0


def test_a_cluster_keeps_its_first_row_only():
    base = "경부고속도로 통행료 정산 안내문입니다. 영업소에서 통행권을 제출하고 요금을 납부해 주시기 바랍니다."
    found = d.find(documents(base + " 끝", "다른 글입니다. 완전히 다릅니다.", base, base + " 끝."), "pretrain_corpus")
    assert found.clusters.filter("kept")["row_id"].to_list() == ["r0"]
    assert found.clusters["cluster"].unique().to_list() == ["r0"]


def test_many_equal_rows_make_one_cluster():
    found = d.find(documents(*["같은 글이 여러 번"] * 500, "다른 글"), "pretrain_corpus")
    assert (found.exact, found.clusters.height) == (499, 500)


def test_an_empty_table_has_no_clusters():
    assert d.find(documents().cast({"row_id": pl.String, "text": pl.String}), "pretrain_corpus").clusters.height == 0


CASES = PUBLIC_DATA.parent / "cases" / "near-duplicates"
SYSTEM = (
    "당신은 누리고속도로의 상담원입니다. "
    + "요금과 휴게소, 단말기에 관한 물음에만 두 문장으로 답하고 이름을 되풀이하지 않습니다. " * 6
)
PASSAGE = "가람댐은 한솔강 상류의 좁은 협곡에 세워진 다목적 댐으로 봄에 공사를 시작해 가을에 완공되었다. " * 6
ASKED = [
    ("가람댐의 높이는 얼마인가?", "높이는 96미터이다."),
    ("어도는 언제 만들었나?", "1998년에 새로 만들었다."),
    ("주민은 몇 명이 옮겨 갔나?", "모두 천사백여 명이 옮겨 갔다."),
    ("수문은 어디에서 여나?", "상황실에서 원격으로 연다."),
    ("휴게소에서 세차할 수 있나요?", "네, 가능합니다."),
    ("하이패스 단말기를 빌릴 수 있나요?", "네, 가능합니다."),
]


def conversations(*turns: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": [f"r{number}" for number in range(len(turns))],
            "messages": [
                [
                    {"role": role, "content": text}
                    for role, text in zip(("system", "user", "assistant"), row, strict=True)
                    if text
                ]
                for row in turns
            ],
            "tools": None,
        },
        schema={"row_id": pl.String, "messages": schema.MESSAGES, "tools": pl.String},
    )


@pytest.mark.parametrize("dataset_type", ["sft_pair", "eval_suite"])
def test_a_shared_system_prompt_or_passage_makes_no_duplicates(dataset_type):
    with_system = conversations(*((SYSTEM, asked, answer) for asked, answer in ASKED))
    assert d.find(with_system, dataset_type).clusters.height == 0
    with_passage = conversations(*(("", f"{asked}\n\n{PASSAGE}", answer) for asked, answer in ASKED))
    assert d.find(with_passage, dataset_type).clusters.height == 0


def test_the_same_passage_of_a_retrieval_row_makes_no_duplicates():
    rows = pl.DataFrame(
        {
            "row_id": [f"r{number}" for number in range(len(ASKED))],
            "question": [asked for asked, _ in ASKED],
            "answer": [answer for _, answer in ASKED],
            "positives": [[PASSAGE]] * len(ASKED),
            "negatives": [[SYSTEM]] * len(ASKED),
        }
    )
    assert d.find(rows, "rag_qa").clusters.height == 0


def test_near_duplicates_under_one_system_prompt_are_found_however_many_share_it():
    rng = random.Random(3)
    letters, others = "가나다라마바사", "아자차카타파하 "
    texts = [(" ".join(rng.choices(letters, k=30)), "".join(rng.choices(others, k=90))) for _ in range(400)]
    twins = [(asked, answer[:40] + "갸" + answer[41:]) for asked, answer in texts[:20]]
    found = d.find(conversations(*((SYSTEM, asked, answer) for asked, answer in [*texts, *twins])), "sft_pair")
    dropped = found.clusters.filter(~pl.col("kept"))["row_id"].to_list()
    assert len(dropped) >= 19 and set(dropped) <= {f"r{400 + number}" for number in range(20)}


def test_rows_under_other_system_prompts_are_not_the_same_row():
    other = "Answer as a pirate would, in rhymes, and never mention the sea. " * 8
    asked = "휴게소에서 세차할 수 있나요, 아니면 다른 곳에 가야 하나요?"
    answer = "네, 가능합니다. 영업소 옆의 세차장을 이용해 주세요."
    assert d.find(conversations((SYSTEM, asked, answer), (other, asked, answer)), "sft_pair").clusters.height == 0
    assert d.find(conversations((SYSTEM, asked, answer), (SYSTEM + "!", asked, answer)), "sft_pair").near == 1


@pytest.mark.public_data
@pytest.mark.parametrize(("name", "count"), [("system_prompt.jsonl", 12), ("alpaca_input.jsonl", 10)])
def test_the_cases_of_public_bug_reports_keep_all_rows(name, count):
    path = CASES / name
    assert path.exists(), f"{path} is missing: LLMOPS_TEST_DATA names the folder of the public data beside the cases"
    rows = pl.concat([batch.rows for batch in ingest([(name, UPath(path))], "sft_pair")])
    assert rows.height == count and d.find(rows, "sft_pair").clusters.height == 0
