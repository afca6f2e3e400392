"""What other tools call otherwise is used, refused or named: nothing that is to be learned is lost in silence."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from llmops_assets.datasets.reading.described import columns_beside
from llmops_assets.datasets.reading.fates import Fates, unlearned
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.reading.recognise import guess

PASSAGE = "하이패스 단말기는 영업소와 휴게소 특판장에서 등록하며, 신분증과 차량등록증을 가져와야 합니다."
ASKED, ANSWERED = (
    {"role": "user", "content": "환불은 언제 되나요?"},
    {"role": "assistant", "content": "사흘 안에 됩니다."},
)


class Read:
    """Rows, refusals as (field, reason), the fates of keys and what was kept unlearned."""

    def __init__(self, folder: Path, rows: list[Any], kind: str, mapping: dict[str, str] | None = None) -> None:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        fates = Fates()
        batches = list(ingest(list_files(UPath(folder)), kind, mapping, fates=fates))
        self.rows = pl.concat([batch.rows for batch in batches])
        self.refused = list(pl.concat([b.quarantine for b in batches]).select("field", "reason").iter_rows())
        self.note = unlearned(fates.records())

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn["role"], turn["content"]) for turn in self.rows["messages"][0]]


@pytest.mark.parametrize("name", ["system_prompt", "system_message", "systemPrompt", "sys_prompt", "시스템"])
@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, ANSWERED]}, {"question": "환불은?", "response": "사흘"},
        {"instruction": "환불은?", "output": "사흘"},
    ],
)  # fmt: skip
def test_a_system_prompt_of_another_name_is_the_first_turn(tmp_path, row, name):
    read = Read(tmp_path, [row | {name: "정중히 답하세요."}], "sft_pair")
    assert read.turns[0] == ("system", "정중히 답하세요.")


def test_two_system_prompts_that_differ_refuse_the_row(tmp_path):
    read = Read(tmp_path, [{"messages": [ASKED, ANSWERED], "system": "가", "system_prompt": "나"}], "sft_pair")
    assert read.refused == [("system_prompt", "system and system_prompt hold different system prompts: keep one")]


def test_a_preference_is_asked_with_its_system_prompt(tmp_path):
    row = {"system_prompt": "짧게", "prompt": "환불은?", "chosen": "사흘", "rejected": "몰라"}
    assert Read(tmp_path, [row], "rlhf_pair").rows["prompt"][0][0]["content"] == "짧게"


@pytest.mark.parametrize("name", ["passage", "article", "paragraph", "지문", "context"])
@pytest.mark.parametrize(
    "row", [{"question": "무엇을?", "answer": "신분증"}, {"instruction": "무엇을?", "output": "신분증"}]
)
def test_a_passage_is_asked_about_and_no_metadata(tmp_path, row, name):
    assert Read(tmp_path, [row | {name: PASSAGE}], "sft_pair").turns[0] == ("user", f"무엇을?\n\n{PASSAGE}")


def test_a_name_of_a_file_is_no_passage(tmp_path):
    read = Read(tmp_path, [{"question": "무엇을?", "answer": "신분증", "article": "manual-2024.pdf"}], "sft_pair")
    assert read.turns[0] == ("user", "무엇을?") and "article (1 rows)" in (read.note or "")


def test_input_and_context_of_one_row_are_both_asked_about(tmp_path):
    read = Read(
        tmp_path, [{"instruction": "옮기세요", "input": "안녕", "context": PASSAGE, "output": "hi"}], "sft_pair"
    )
    assert read.turns[0][1] == f"옮기세요\n\n안녕\n\n{PASSAGE}"


@pytest.mark.parametrize(
    "options",
    [
        {"options": ["영업소", "휴게소"]},
        {"choices": {"text": ["영업소", "휴게소"], "label": ["A", "B"]}},
        {"choices": [{"label": "A", "text": "영업소"}, {"label": "B", "text": "휴게소"}]},
        {"options": {"A": "영업소", "B": "휴게소"}},
        {"options": ["A. 영업소", "B. 휴게소"]},
        {"A": "영업소", "B": "휴게소"},
    ],
)
def test_a_letter_is_learned_with_the_options_that_it_names(tmp_path, options):
    read = Read(tmp_path, [{"question": "어디에서?", "answer": "A"} | options], "sft_pair")
    assert read.turns == [("user", "어디에서?\nA. 영업소\nB. 휴게소"), ("assistant", "A")]


def test_options_that_the_question_has_are_not_asked_twice(tmp_path):
    asked = "어디에서? (1) 영업소 (2) 휴게소"
    read = Read(tmp_path, [{"question": asked, "answer": "영업소", "choices": ["영업소", "휴게소"]}], "sft_pair")
    assert read.turns[0][1] == asked


@pytest.mark.parametrize(
    "said",
    [
        {"label": "bad"}, {"label": "rejected"}, {"label": "👎"}, {"correct": 0}, {"accepted": False},
        {"is_helpful": "no"},
        {"is_safe": False}, {"approved": "no"}, {"quality": "bad"}, {"preference": "rejected"}, {"판정": "나쁨"},
    ],
)  # fmt: skip
def test_an_answer_that_was_found_bad_is_not_taught(tmp_path, said):
    read = Read(tmp_path, [{"question": "환불은?", "answer": "몰라"} | said], "sft_pair")
    assert read.rows.height == 0 and read.refused[0][0] == next(iter(said)) and "type kto" in read.refused[0][1]


@pytest.mark.parametrize(
    "said", [{"label": "good"}, {"label": 3}, {"quality": "high"}, {"correct": True}, {"approved": "yes"}]
)
def test_what_says_nothing_against_an_answer_is_taught(tmp_path, said):
    assert Read(tmp_path, [{"question": "환불은?", "answer": "사흘"} | said], "sft_pair").rows.height == 1


@pytest.mark.parametrize("labels", [[0, 1], [1, -1], ["0", "1"], ["good", "bad"], ["👍", "👎"], [True, False]])
def test_answers_labelled_as_good_and_bad_are_recognised_as_such(tmp_path, labels):
    rows = [{"prompt": f"질문 {n}", "completion": f"대답 {n}", "label": labels[n % 2]} for n in range(6)]
    assert Read(tmp_path, rows, "kto").rows["label"].to_list() == [
        n % 2 == labels.index(_good(labels)) for n in range(6)
    ]
    assert guess(list_files(UPath(tmp_path))).type == "kto"


def _good(labels: list[Any]) -> Any:
    return next(label for label in labels if label in (1, "1", "good", "👍", True))


def test_classes_in_numbers_are_no_judgement_of_answers(tmp_path):
    rows = [{"question": f"질문 {n}", "answer": f"대답 {n}", "label": n % 3} for n in range(6)]
    read = Read(tmp_path, rows, "sft_pair")
    assert guess(list_files(UPath(tmp_path))).type == "sft_pair"
    assert read.rows.height == 6 and "label (6 rows)" in (read.note or "")


def test_a_registry_that_names_a_column_of_judgements_makes_the_type(tmp_path):
    rows = [{"messages": [ASKED, ANSWERED], "ok": n == 0} for n in range(2)]
    (tmp_path / "x.json").write_text(json.dumps(rows, ensure_ascii=False))
    entry = {"file_name": "x.json", "formatting": "sharegpt", "columns": {"messages": "messages", "kto_tag": "ok"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"x": entry}))
    files = [("x.json", UPath(tmp_path / "x.json"))]
    assert guess(files, columns_beside([tmp_path], ["x.json"]).mapping).type == "kto"


@pytest.mark.parametrize("name", ["do_train", "train_on", "is_trained", "learn", "supervised", "compute_loss"])
def test_a_turn_that_is_not_trained_under_any_name_carries_no_loss(tmp_path, name):
    later = [{"role": "user", "content": "또요?"}, {"role": "assistant", "content": "네."}]
    read = Read(tmp_path, [{"messages": [ASKED, ANSWERED | {name: False}, *later]}], "sft_pair")
    assert [turn["weight"] for turn in read.rows["messages"][0]] == [None, 0, None, None]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"skip": True}, "a turn marked skip"), ({"deleted": 1}, "a turn marked deleted"),
        ({"feedback": "bad"}, "feedback"), ({"thumbs_up": False}, "feedback"), ({"reward": -1.0}, "reward"),
        ({"channel": "analysis"}, "reasoning_content"), ({"recipient": "python"}, "tool_calls"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_turn_and_cannot_be_heeded_refuses_the_row(tmp_path, said, words):
    read = Read(tmp_path, [{"messages": [ASKED, ANSWERED | said]}], "sft_pair")
    assert read.refused[0][0] == f"messages[1].{next(iter(said))}" and words in read.refused[0][1]


@pytest.mark.parametrize(
    "said", [{"skip": False}, {"channel": "final"}, {"recipient": "all"}, {"deleted": None}, {"feedback": ""}]
)
def test_what_says_nothing_of_a_turn_refuses_nothing(tmp_path, said):
    assert Read(tmp_path, [{"messages": [ASKED, ANSWERED | said]}], "sft_pair").rows.height == 1


def test_a_refusal_beside_no_content_says_where_to_write_it(tmp_path):
    turn = {"role": "assistant", "content": None, "refusal": "도와드릴 수 없습니다."}
    assert "write the refusal as content" in Read(tmp_path, [{"messages": [ASKED, turn]}], "sft_pair").refused[0][1]


@pytest.mark.parametrize(
    "more",
    [
        {"negative_1": "가", "negative_2": "나"}, {"negative1": "가", "negative2": "나"},
        {"hard_negative": "가", "neg_2": "나"},
        {"hard_neg_1": "가", "hard_negative_2": "나"}, {"negative": "가", "negative_1": "나"},
    ],
)  # fmt: skip
def test_negatives_in_columns_of_their_own_are_negatives(tmp_path, more):
    row = {"anchor": "환불은 언제?", "positive": "사흘 안에"} | more
    assert Read(tmp_path, [row], "embedding_pair").rows["negatives"][0].to_list() == ["가", "나"]


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("embedding_pair", {"anchor": "환불", "positive": "사흘", "negative": "사흘"}),
        ("embedding_pair", {"query": "환불", "pos": ["사흘"], "neg": ["나흘", "환불"]}),
        ("rag_qa", {"question": "환불", "answer": "사흘", "positives": [PASSAGE], "negatives": [PASSAGE]}),
    ],
)
def test_a_text_that_belongs_and_does_not_refuses_the_row(tmp_path, kind, row):
    read = Read(tmp_path, [row], kind)
    assert read.rows.height == 0 and "at once" in read.refused[0][1]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"instruction": "환불은?", "Instruction": "배송은?", "output": "사흘"}, "Instruction"),
        (
            {"question": "환불은?", "answer": "사흘", "category": "가", "metadata": {"category": "나"}},
            "metadata.category",
        ),
        ({"question": "환불은?", "answer": "사흘", "id": 1, "metadata": {"id": 2}}, "metadata.id"),
        ({"question": "환불은?", "answer": "사흘", "lang": "ko", "metadata": {"lang": "en"}}, "metadata.lang"),
    ],
)
def test_one_name_with_two_values_refuses_the_row(tmp_path, row, field):
    read = Read(tmp_path, [row, {"question": "배송은?", "answer": "이틀"}], "sft_pair")
    assert read.rows.height == 1 and read.refused[0][0] == field and "keep one" in read.refused[0][1]


def test_one_name_with_one_value_in_both_places_is_read(tmp_path):
    row = {"question": "환불은?", "answer": "사흘", "category": "가", "id": 1, "metadata": {"category": "가", "id": 1}}
    assert Read(tmp_path, [row], "sft_pair").rows["category"].to_list() == ["가"]


def test_answers_that_differ_in_spaces_alone_prefer_nothing(tmp_path):
    read = Read(tmp_path, [{"prompt": "환불은?", "chosen": "사흘 ", "rejected": "사흘"}], "rlhf_pair")
    assert "the same" in read.refused[0][1]


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path):
    table = pa.table(
        [pa.array(["환불은?"]), pa.array(["사흘"]), pa.array(["나흘"])], names=["question", "answer", "answer"]
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    (batch,) = ingest(list_files(UPath(tmp_path)), "sft_pair")
    assert batch.rows.height == 0 and "several columns of one name (answer)" in batch.quarantine["reason"][0]


def test_long_text_that_is_kept_as_metadata_is_named(tmp_path):
    rows = [
        {"question": f"질문 {n}", "answer": "신분증", "자료": PASSAGE + " " + PASSAGE, "url": "https://example.com/a"}
        for n in range(3)
    ]
    note = Read(tmp_path, rows, "sft_pair").note
    assert note is not None and f"자료 (3 rows, {2 * len(PASSAGE) + 1} characters each)" in note and "url" not in note


def test_metadata_that_says_nothing_to_learn_is_not_named(tmp_path):
    rows = [
        {"question": f"질문 {n}", "answer": "신분증", "url": "https://example.com", "날짜": "2024-01-02"}
        for n in range(3)
    ]
    assert Read(tmp_path, rows, "sft_pair").note is None


def test_openais_preferences_are_read_with_their_tools(tmp_path):
    tool = {"type": "function", "function": {"name": "refund", "parameters": {}}}
    given = {"messages": [ASKED], "tools": [tool], "parallel_tool_calls": True}
    answers = {"preferred_output": [ANSWERED], "non_preferred_output": [{"role": "assistant", "content": "몰라요."}]}
    read = Read(tmp_path, [{"input": given, **answers}], "rlhf_pair")
    assert guess(list_files(UPath(tmp_path))).type == "rlhf_pair"
    assert read.rows["chosen"][0][0]["content"] == ANSWERED["content"] and "refund" in read.rows["tools"][0]
    assert "parallel_tool_calls" in read.rows["extra"][0]


def test_a_page_of_korquad_is_its_questions(tmp_path):
    asked = [{"question": f"{n}번은?", "answer": {"text": "신분증", "answer_start": 3}, "id": str(n)} for n in range(2)]
    page = {"version": "KorQuAD_2.0", "data": [{"title": "등록", "context": PASSAGE, "qas": asked}]}
    (tmp_path / "pages.json").write_text(json.dumps(page, ensure_ascii=False))
    files = list_files(UPath(tmp_path))
    assert guess(files).type == "rag_qa"
    rows = pl.concat([batch.rows for batch in ingest(files, "rag_qa")])
    assert rows["question"].to_list() == ["0번은?", "1번은?"] and rows["answer"].to_list() == ["신분증"] * 2
    assert rows["positives"][0].to_list() == [PASSAGE]


@pytest.mark.parametrize(
    "said",
    [
        {"weights": [0, 1]}, {"loss_mask": [0, 1]}, {"train_on": "last"}, {"train_on_last_turn": True},
        {"train": False}, {"mask_history": True}, {"masked_turns": [1]},
    ],
)  # fmt: skip
def test_what_a_row_says_of_the_loss_of_its_turns_refuses_it(tmp_path, said):
    read = Read(tmp_path, [{"messages": [ASKED, ANSWERED]} | said], "sft_pair")
    assert read.refused[0][0] == next(iter(said)) and "write it into the turns" in read.refused[0][1]


@pytest.mark.parametrize("said", [{"train": True}, {"mask_history": False}, {"loss": 1.23}, {"weights": None}])
def test_what_a_row_says_of_nothing_refuses_nothing(tmp_path, said):
    assert Read(tmp_path, [{"messages": [ASKED, ANSWERED]} | said], "sft_pair").rows.height == 1


@pytest.mark.parametrize("name", ["helpfulness", "overall_score", "만족도"])
def test_a_rating_of_an_answer_under_any_name_refuses_the_row(tmp_path, name):
    read = Read(tmp_path, [{"prompt": "환불은?", "response": "사흘", name: 4}], "sft_pair")
    assert read.refused[0][0] == name and "label.at_least_4" in read.refused[0][1]


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": "1", "answers": None, "role": "prompter", "text": "환불은?"},
         {"id": "2", "answers": "1", "role": "assistant", "text": "사흘"}],
        [{"session": 1, "role": "user", "content": "환불은?"}, {"session": 1, "role": "bot", "content": "네"}],
    ],
)  # fmt: skip
def test_messages_that_are_a_row_each_are_no_corpus(tmp_path, rows):
    read = Read(tmp_path, rows, "pretrain_corpus")
    assert read.rows.height == 0 and "one message of a conversation a row" in read.refused[0][1]
    guessed = guess(list_files(UPath(tmp_path)))
    assert guessed.type is None and "one message of a conversation a row" in guessed.words()


def test_a_mapping_of_a_field_that_nothing_has_is_named(tmp_path):
    rows = [{"질문": "환불은?", "답변": "사흘", "맥락": "글"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0], ensure_ascii=False))
    fates = Fates()
    list(ingest(list_files(UPath(tmp_path)), "sft_pair", {"contxt": "맥락"}, fates=fates))
    assert "contxt (1 rows)" in (unlearned(fates.records(), {"contxt": "맥락"}) or "")


def test_a_pair_that_nobody_scored_is_no_positive(tmp_path):
    rows = [
        {"sentence1": f"글 {n}", "sentence2": f"다른 글 {n}", "score": score} for n, score in enumerate((4.0, None))
    ]
    read = Read(tmp_path, rows, "embedding_pair")
    assert read.rows["score"].to_list() == [0.8]
    assert [field for field, _ in read.refused] == ["score"] and "no score, which other rows have" in read.refused[0][1]


def test_pairs_of_a_table_without_any_score_are_positives(tmp_path):
    plain = [{"anchor": f"글 {n}", "positive": f"다른 글 {n}"} for n in range(2)]
    whole = Read(tmp_path, plain, "embedding_pair").rows
    again = Read(tmp_path, [row | {"score": None} for row in plain], "embedding_pair").rows
    assert again["positives"].to_list() == whole["positives"].to_list()
    assert again["row_id"].to_list() == whole["row_id"].to_list()
