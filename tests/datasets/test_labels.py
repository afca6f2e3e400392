"""What a label says is heeded: contradictions are no positives, bad answers are not taught, scores are kept."""

import json
from pathlib import Path

import pandas
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.recognise import guess, type_of_row
from llmops_assets.datasets.reading.scan import ScanError, scan
from llmops_assets.records.datasets import FileAccount
from llmops_assets.specs.policy import load_policy


def read(folder: Path, *rows: object, kind: str, name: str = "rows.jsonl", **options) -> tuple[list[dict], list[dict]]:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    accounts: dict[str, FileAccount] = {}
    batches = list(ingest([(name, UPath(path))], kind, accounts=accounts, **options))
    assert accounts[name].missing == 0, accounts
    rows_read = pl.concat([batch.rows for batch in batches]).to_dicts()
    return rows_read, pl.concat([batch.quarantine for batch in batches]).to_dicts()


def said(messages: list[dict]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in messages]


def nli(premise: str, hypothesis: str, label: object, key: str = "label") -> dict:
    return {"premise": premise, "hypothesis": hypothesis, key: label}


def test_a_contradiction_is_the_hard_negative_of_the_entailment_of_its_premise(tmp_path):
    rows = [
        nli("차가 요금소를 지났다", "차량이 톨게이트를 통과했다", "entailment"),
        nli("아이가 공을 찬다", "아이가 논다", "entailment"),
        nli("차가 요금소를 지났다", "차가 서 있다", "Contradiction"),
        nli("차가 요금소를 지났다", "날이 맑다", "neutral"),
        nli("하늘이 맑다", "비가 온다", "모순"),
        nli("아무도 모른다", "모른다", "-"),
    ]
    found, refused = read(tmp_path, *rows, kind="embedding_pair")
    assert [(r["anchor"], r["positives"], r["negatives"], r["score"], r["line"]) for r in found] == [
        ("차가 요금소를 지났다", ["차량이 톨게이트를 통과했다"], ["차가 서 있다"], None, 1),
        ("아이가 공을 찬다", ["아이가 논다"], [], None, 2),
    ]
    assert json.loads(found[0]["extra"])["neutral"] == ["날이 맑다"]
    assert [(r["line"], r["field"]) for r in refused] == [(5, "label"), (6, "label")]
    assert "nothing of the file is positive" in refused[0]["reason"] and "nobody agreed" in refused[1]["reason"]


def test_numbers_of_inference_are_refused_until_they_are_named(tmp_path):
    rows = [nli("가", "나", 0), nli("가", "다", 2), nli("라", "마", 0)]
    found, refused = read(tmp_path, *rows, kind="embedding_pair")
    assert found == [] and len(refused) == 3 and "--map label.0=entailment" in refused[0]["reason"]
    names = {"label.0": "entailment", "label.1": "neutral", "label.2": "contradiction"}
    found, refused = read(tmp_path, *rows, kind="embedding_pair", mapping=names)
    assert refused == []
    assert [(r["anchor"], r["positives"], r["negatives"]) for r in found] == [
        ("가", ["나"], ["다"]),
        ("라", ["마"], []),
    ]
    # Another set counts the other way round.
    turned = {"label.2": "entailment", "label.1": "neutral", "label.0": "contradiction"}
    found, _ = read(tmp_path, *rows, kind="embedding_pair", mapping=turned)
    assert [(r["positives"], r["negatives"]) for r in found] == [(["다"], ["나"])]


def test_a_parquet_file_of_datasets_names_its_labels_itself(tmp_path):
    # What `Dataset.to_parquet` writes.
    label = {"names": ["contradiction", "entailment", "neutral"], "_type": "ClassLabel"}
    table = pa.table({"premise": ["가", "가", "가"], "hypothesis": ["나", "다", "라"], "label": [0, 1, 2]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": label}}})})
    pq.write_table(table, tmp_path / "rows.parquet")
    found, refused = read(tmp_path, kind="embedding_pair", name="rows.parquet")
    assert refused == [] and (found[0]["positives"], found[0]["negatives"]) == (["다"], ["나"])


def test_scores_are_kept_as_shares_of_their_scale(tmp_path):
    pairs = [{"sentence1": f"가{i}", "sentence2": f"나{i}", "score": score} for i, score in enumerate([0, 2.5, 5.0])]
    found, refused = read(tmp_path, *pairs, kind="embedding_pair")
    assert refused == [] and [(r["positives"], r["score"]) for r in found] == [
        (["나0"], 0),
        (["나1"], 0.5),
        (["나2"], 1),
    ]
    klue = [
        {"sentence1": "가", "sentence2": "나", "labels": {"label": 1.4, "real-label": 1.42, "binary-label": 0}},
        {"sentence1": "다", "sentence2": "라", "labels": {"label": 4.0, "real-label": 4.0, "binary-label": 1}},
    ]
    found, _ = read(tmp_path, *klue, kind="embedding_pair")
    assert [round(r["score"], 3) for r in found] == [0.284, 0.8]
    shares = [
        {"sentence1": "가", "sentence2": "나", "similarity": 0.2},
        {"sentence1": "다", "sentence2": "라", "similarity": 1},
    ]
    found, _ = read(tmp_path, *shares, kind="embedding_pair")
    assert [r["score"] for r in found] == [0.2, 1.0]
    _, refused = read(tmp_path, {**shares[0], "similarity": 87}, kind="embedding_pair")
    assert "scores go from 0 to 1 or from 0 to 5" in refused[0]["reason"]
    _, refused = read(tmp_path, {**shares[0], "similarity": "높음"}, kind="embedding_pair")
    assert "'높음' says nothing" in refused[0]["reason"]


def test_scores_of_a_tsv_as_korsts_writes_it(tmp_path):
    text = (
        "genre\tfilename\tyear\tid\tscore\tsentence1\tsentence2\n"
        'news\tx\t2015\t1\t5.000\t"말을 탄 사람\t말 위의 사람\nnews\tx\t2015\t2\t1.250\t개가 잔다\t고양이가 "뛴다"\n'
    )
    (tmp_path / "rows.tsv").write_text(text, encoding="utf-8")
    found, refused = read(tmp_path, kind="embedding_pair", name="rows.tsv")
    assert refused == []
    assert [(r["anchor"], r["positives"][0], r["score"]) for r in found] == [
        ('"말을 탄 사람', "말 위의 사람", 1.0),
        ("개가 잔다", '고양이가 "뛴다"', 0.25),
    ]


def test_pairs_of_yes_and_no_become_negatives_of_their_anchor_or_scores(tmp_path):
    by_anchor = [
        {"question1": "환불되나요", "question2": "환불이 되나요", "is_duplicate": 1},
        {"question1": "환불되나요", "question2": "영수증 있나요", "is_duplicate": 0},
    ]
    found, _ = read(tmp_path, *by_anchor, kind="embedding_pair")
    assert [(r["positives"], r["negatives"], r["score"]) for r in found] == [
        (["환불이 되나요"], ["영수증 있나요"], None)
    ]
    lonely = [{"sentence1": f"가{i}", "sentence2": f"나{i}", "label": i % 2} for i in range(4)]
    found, refused = read(tmp_path, *lonely, kind="embedding_pair")
    assert refused == [] and [(r["positives"], r["score"]) for r in found] == [
        (["나0"], 0.0), (["나1"], 1.0), (["나2"], 0.0), (["나3"], 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"query": "왜", "pos": ["가"], "neg": ["나", "다"], "pos_scores": [0.9]}, ("왜", ["가"], ["나", "다"])),
        ({"anchor": "왜", "positive": "가", "negative": "나"}, ("왜", ["가"], ["나"])),
        ({"set": ["가", "나", "다"]}, ("가", ["나", "다"], [])),
        (
            {
                "question": "왜",
                "answers": ["답"],
                "positive_ctxs": [{"title": "제목", "text": "가"}],
                "hard_negative_ctxs": [{"title": "", "text": "나"}],
                "negative_ctxs": [{"text": "다"}],
            },
            ("왜", ["제목\n가"], ["나", "다"]),
        ),
        (
            {
                "query": "왜",
                "passages": {"is_selected": [0, 1], "passage_text": ["나", "가"], "url": ["", ""]},
                "answers": ["답"],
            },
            ("왜", ["가"], ["나"]),
        ),
        (
            {"query": "왜", "positive_passages": [{"docid": "1", "title": "", "text": "가"}], "negative_passages": []},
            ("왜", ["가"], []),
        ),
    ],
)
def test_shapes_of_retrieval(tmp_path, row, expected):
    found, refused = read(tmp_path, row, kind="embedding_pair")
    assert refused == []
    assert (found[0]["anchor"], found[0]["positives"], found[0]["negatives"]) == expected
    if "answers" in row:
        found, _ = read(tmp_path, row, kind="rag_qa")
        assert (found[0]["answer"], found[0]["positives"], found[0]["negatives"]) == ("답", *expected[1:])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query-id": "1", "corpus-id": "2", "score": 1}, "BEIR"),
        ({"premise": "가", "hypothesis": "나"}, "without a label"),
        ({"SENTENCE1": "가", "SENTENCE2": "나", "ANSWER": "TRUE"}, "--map label=answer"),
        ({"query": "왜", "passages": {"is_selected": [0], "passage_text": ["가"]}, "answers": []}, "no passage was"),
        ({"query": "왜", "pos": ["가"], "neg": ["나"], "prompt": "Represent this: "}, "query_prompt into the spec"),
        ({"instruction": "Retrieve passages", "query": "왜", "positive": "가"}, "query_prompt into the spec"),
    ],
)
def test_what_cannot_be_understood_of_two_texts_is_refused(tmp_path, row, reason):
    found, refused = read(tmp_path, row, kind="embedding_pair")
    assert found == [] and reason in refused[0]["reason"]


SYSTEM = {"role": "system", "content": "짧게"}
ASK = {"role": "user", "content": "고를까?"}
GOOD, BAD = {"role": "assistant", "content": "좋은 답"}, {"role": "assistant", "content": "나쁜 답"}
HUMAN = "\n\nHuman: 고를까?\n\nAssistant:"
WITH_SYSTEM = [("system", "짧게"), ("user", "고를까?")]
PLAIN = [("user", "고를까?")]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"chosen": f"{HUMAN} 좋은 답", "rejected": f"{HUMAN} 나쁜 답"}, PLAIN),
        ({"prompt": HUMAN, "chosen": "좋은 답", "rejected": "나쁜 답"}, PLAIN),
        ({"system": "짧게", "question": "고를까?", "chosen": "좋은 답", "rejected": "나쁜 답"}, WITH_SYSTEM),
        ({"prompt": "고를까?", "chosen": [SYSTEM, ASK, GOOD], "rejected": [SYSTEM, ASK, BAD]}, WITH_SYSTEM),
        ({"prompt": [ASK], "chosen": [SYSTEM, GOOD], "rejected": [SYSTEM, BAD]}, WITH_SYSTEM),
        ({"prompt": [SYSTEM, ASK], "chosen": [ASK, GOOD], "rejected": [SYSTEM, ASK, BAD]}, WITH_SYSTEM),
        ({"chosen": [SYSTEM, ASK, GOOD], "rejected": [SYSTEM, ASK, BAD]}, WITH_SYSTEM),
        (
            {
                "prompt": "고를까?", "messages": [ASK, GOOD], "chosen": [ASK, GOOD], "rejected": [ASK, BAD],
                "score_chosen": 8.0, "score_rejected": 3.5,
            },
            PLAIN,
        ),
        (
            {
                "instruction": "고를까?",
                "completions": [
                    {"response": "보통 답", "overall_score": 5.0},
                    {"response": "나쁜 답", "overall_score": 2.0},
                    {"response": "좋은 답", "overall_score": 8.5},
                ],
            },
            PLAIN,
        ),
        (
            {"history": "고를까?", "human_ref_A": "좋은 답", "human_ref_B": "나쁜 답", "labels": 1, "score_A": 9,
             "score_B": 2},
            PLAIN,
        ),
        ({"history": "고를까?", "human_ref_A": "나쁜 답", "human_ref_B": "좋은 답", "labels": 0}, PLAIN),
        (
            {"prompt": "고를까?", "response_0": "나쁜 답", "response_1": "좋은 답", "better_response_id": 1,
             "safer_response_id": 1},
            PLAIN,
        ),
        ({"conversation_a": [ASK, BAD], "conversation_b": [ASK, GOOD], "winner": "model_b"}, PLAIN),
        ({"instruction": "고를까?", "output_1": "나쁜 답", "output_2": "좋은 답", "preference": 2}, PLAIN),
        ({"question": "고를까?", "response_j": "좋은 답", "response_k": "나쁜 답"}, PLAIN),
        (
            {
                "conversations": [{"from": "system", "value": "짧게"}, {"from": "human", "value": "고를까?"}],
                "chosen": {"from": "gpt", "value": "좋은 답"},
                "rejected": {"from": "gpt", "value": "나쁜 답"},
            },
            WITH_SYSTEM,
        ),
    ],
)  # fmt: skip
def test_shapes_of_preferences_become_the_same_row(tmp_path, row, prompt):
    found, refused = read(tmp_path, row, kind="rlhf_pair")
    assert refused == []
    assert said(found[0]["prompt"]) == prompt
    assert (said(found[0]["chosen"]), said(found[0]["rejected"])) == (
        [("assistant", "좋은 답")],
        [("assistant", "나쁜 답")],
    )
    assert type_of_row(row) == "rlhf_pair"


TWO = {"prompt": "고를까?", "chosen": "좋은 답", "rejected": "나쁜 답"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**TWO, "score_chosen": 3, "score_rejected": 3}, "none was preferred"),
        ({**TWO, "chosen-rating": 2, "rejected-rating": 4}, "the chosen answer has the score 2"),
        ({**TWO, "status": "tie"}, "a tie"),
        ({"history": "?", "human_ref_A": "가", "human_ref_B": "나", "score_A": 2, "score_B": 2}, "none was preferred"),
        ({"conversation_a": [ASK, BAD], "conversation_b": [ASK, GOOD], "winner": "tie (bothbad)"}, "none of the two"),
        (
            {"prompt": "?", "response_0": "가", "response_1": "나", "better_response_id": 0, "safer_response_id": 1},
            "differ",
        ),
        ({"prompt": "?", "response_0": "가", "response_1": "나"}, "nothing says which was preferred"),
        ({"instruction": "?", "completions": [{"response": "가"}, {"response": "나"}]}, "not all have a score"),
        ({"chosen": "좋은 답", "rejected": "나쁜 답"}, "share no beginning"),
        ({"prompt": [ASK], "chosen": [SYSTEM, GOOD], "rejected": [BAD]}, "told different things"),
        (
            {"chosen": [ASK, GOOD, ASK, GOOD], "rejected": [ASK, BAD, ASK, BAD]},
            "part before their last answer",
        ),
        ({"prompt": "?", "completion": "가", "label": True}, "type kto"),
    ],
)  # fmt: skip
def test_what_nobody_preferred_is_refused(tmp_path, row, reason):
    found, refused = read(tmp_path, row, kind="rlhf_pair")
    assert found == [] and reason in refused[0]["reason"]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"prompt": "묻나요", "completion": "네", "label": True}, True),
        ({"prompt": "묻나요", "completion": "네", "label": "FALSE"}, False),
        ({"prompt": [{"role": "user", "content": "묻나요"}], "completion": [{"role": "assistant", "content": "네"}],
          "label": 0}, False),
        (
            {"messages": [{"role": "user", "content": "묻나요"}, {"role": "assistant", "content": "네"}], "label": 1},
            True,
        ),
        ({"instruction": "묻나요", "input": "", "output": "네", "kto_tag": False}, False),
        (
            {"conversations": [{"from": "human", "value": "묻나요"}, {"from": "gpt", "value": "네"}], "kto_tag": True},
            True,
        ),
    ],
)  # fmt: skip
def test_shapes_of_rated_answers_become_the_same_row(tmp_path, row, label):
    found, refused = read(tmp_path, row, kind="kto")
    assert refused == []
    assert (said(found[0]["prompt"]), said(found[0]["completion"])) == ([("user", "묻나요")], [("assistant", "네")])
    assert found[0]["label"] is label
    assert label == 0 or read(tmp_path, {**row, "label": False, "kto_tag": False}, kind="kto")[0] != []


def test_the_same_answer_found_good_and_bad_is_two_rows(tmp_path):
    row = {"prompt": "묻나요", "completion": "네"}
    found, _ = read(tmp_path, {**row, "label": True}, {**row, "label": False}, kind="kto")
    assert len({r["row_id"] for r in found}) == 2 and not any("-" in r["row_id"] for r in found)


def test_cleaning_keeps_bad_answers_that_were_brought_as_such(tmp_path):
    good = [f"{i}번 창구는 {i}층 안내소 옆에 있으니 표지판을 따라오세요." for i in range(20)]
    rows = [
        {"prompt": f"{i}번 창구는 어디에 있나요?", "completion": text, "label": True} for i, text in enumerate(good)
    ]
    rows += [{**row, "completion": "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ", "label": False} for row in rows[:5]]
    rows += [
        {**rows[0], "label": False},
        {**rows[1], "completion": "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ", "label": True},
        rows[2],
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    found = scan(str(tmp_path / "rows.jsonl"), load_policy(), out=tmp_path / "out")
    assert found.type == "kto" and found.dropped == {"exact duplicate": 1, "low score": 1}
    clean = [json.loads(line) for line in (tmp_path / "out" / "clean.jsonl").read_text().splitlines()]
    assert [row["label"] for row in clean].count(False) == 6
    assert {row["label"] for row in clean if row["prompt"][0]["content"].startswith("0번")} == {True, False}


def test_ratings_become_labels_by_an_explicit_mapping_only(tmp_path):
    rows = [{"prompt": f"묻나요 {i}", "completion": "네", "stars": i} for i in range(1, 6)]
    found, refused = read(
        tmp_path, *rows, kind="kto", mapping={"prompt": "prompt", "completion": "completion", "label": "stars"}
    )
    assert [r["label"] for r in found] == [True] and len(refused) == 4 and "label.at_least_4" in refused[0]["reason"]
    found, refused = read(tmp_path, *rows, kind="kto", mapping={"label.at_least_4": "stars"})
    assert refused == [] and [r["label"] for r in found] == [False, False, False, True, True]


@pytest.mark.parametrize(
    "beside",
    [{"label": False}, {"label": "false"}, {"kto_tag": False}, {"rating": 1}, {"stars": "5"}, {"thumbs_up": 0}],
)
def test_no_bad_answer_is_taught_as_a_good_one(tmp_path, beside):
    row = {"prompt": "묻나요", "completion": "몰라요"}
    found, refused = read(tmp_path, row, {**row, **beside}, {**row, "label": 2}, kind="sft_pair")
    assert [r["line"] for r in found] == [1, 3]
    assert refused[0]["line"] == 2 and "register the file as type kto" in refused[0]["reason"]


def test_rated_answers_are_recognised_and_a_class_is_none(tmp_path):
    assert type_of_row({"prompt": "가", "completion": "나", "label": False}) == "kto"
    assert type_of_row({"messages": [], "kto_tag": True}) == "kto"
    assert type_of_row({"Q": "가", "A": "나", "label": "0"}) == "sft_pair"
    assert type_of_row({"prompt": "가", "completion": "나"}) == "sft_pair"


def test_a_guess_by_which_all_ask_the_same_is_none(tmp_path):
    rows = [
        {"sentence": f"문장 {i}", "question": "원인" if i % 2 else "결과", "1": "가", "2": "나", "answer": "1"}
        for i in range(200)
    ]
    pandas.DataFrame(rows).to_csv(tmp_path / "copa.tsv", sep="\t", index=False)
    found = guess([("copa.tsv", UPath(tmp_path / "copa.tsv"))])
    assert found.type is None and "2 different texts in 200 rows" in found.refused
    with pytest.raises(ScanError, match=r"The columns are sentence, question, 1, 2, answer: name the type with --type"):
        scan(str(tmp_path / "copa.tsv"), load_policy())
    rows = [{"question": f"왜 {i}?", "answer": "네"} for i in range(200)]
    pandas.DataFrame(rows).to_csv(tmp_path / "qa.csv", index=False)
    found = guess([("qa.csv", UPath(tmp_path / "qa.csv"))])
    assert found.words() == "sft_pair by the fields question, answer, in 200 of the first 200 rows"
