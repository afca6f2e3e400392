"""Messages that are a row each become conversations: trees by their best way, turns in their order, or are refused."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.recognise import guess
from llmops_assets.records.datasets import FileAccount


class Read:
    """Rows of one file as its type's texts, with refusals, metadata and the account, which adds up."""

    def __init__(self, folder: Path, rows: list[Any] | str, kind: str | None = None, name: str = "rows.jsonl") -> None:
        path = folder / name
        lines = rows if isinstance(rows, str) else "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        path.write_text(lines, encoding="utf-8")
        files = [(name, UPath(path))]
        self.kind = guess(files).type
        accounts: dict[str, FileAccount] = {}
        self.keys = Fates()
        batches = list(ingest(files, kind or self.kind or "sft_pair", accounts=accounts, fates=self.keys))
        assert accounts[name].missing == 0, accounts[name]
        self.rows = pl.concat([batch.rows for batch in batches])
        self.refused = {(one["line"], one["reason"]) for b in batches for one in b.quarantine.to_dicts()}
        self.extra = [json.loads(text) for text in self.rows["extra"]]

    def turns(self, column: str = "messages") -> list[list[tuple[str, str]]]:
        return [[(m["role"], m["content"]) for m in row] for row in self.rows[column]]


def message(key: str, parent: str | None, text: str, rank: Any = None, **more: Any) -> dict[str, Any]:
    depth = 0 if parent is None else parent.count(".") + 1
    role = "assistant" if depth % 2 else "prompter"
    return {"message_id": key, "parent_id": parent, "text": text, "role": role, "rank": rank, **more}


TREE = [
    message("a", None, "환불은 며칠 걸리나요?", lang="ko", tree_state="ready_for_export"),
    message("a.1", "a", "몰라요.", 2),
    message("a.2", "a", "사흘입니다.", 0),
    message("a.3", "a", "바로요!", 1, deleted=True),
    message("a.4", "a", "영원히요.", 0, review_result=False),
    message("a.2.1", "a.2", "휴일에도요?"),
    message("a.2.1.1", "a.2.1", "휴일은 뺍니다."),
    message("a.2.1.1.1", "a.2.1.1", "고마워요."),
]
BEST = [
    ("user", "환불은 며칠 걸리나요?"),
    ("assistant", "사흘입니다."),
    ("user", "휴일에도요?"),
    ("assistant", "휴일은 뺍니다."),
]


def nested(rows: list[dict[str, Any]]) -> dict[str, Any]:
    nodes = {row["message_id"]: {**row, "replies": []} for row in rows}
    for node in nodes.values():
        if node["parent_id"]:
            nodes[node["parent_id"]]["replies"].append(node)
    return {"message_tree_id": "a", "tree_state": "ready_for_export", "prompt": nodes["a"]}


@pytest.mark.parametrize("rows", [TREE, TREE[::-1], [nested(TREE)]], ids=["flat", "answers first", "nested"])
def test_a_tree_is_the_conversation_of_its_best_answers(tmp_path, rows):
    read = Read(tmp_path, rows)

    assert read.kind == "sft_pair" and not read.refused
    assert read.turns() == [BEST]
    left_out = {"deleted": 1, "of a lower rank": 1, "turned down by the reviewers": 1, "without an answer": 1}
    assert read.extra[0]["replies_left_out"] == left_out
    assert read.extra[0]["prompt[0].lang"] == "ko"


def test_a_tree_in_a_table_says_yes_and_no_in_words(tmp_path):
    names = ["message_id", "parent_id", "text", "role", "rank", "deleted", "review_result"]
    cells = [[str("" if row.get(name) is None else row[name]) for name in names] for row in TREE]
    read = Read(tmp_path, "\n".join("\t".join(line) for line in [names, *cells]) + "\n", name="tree.tsv")

    assert read.turns() == [BEST]


def test_the_best_and_the_worst_answer_of_a_tree_are_a_preference(tmp_path):
    read = Read(tmp_path, TREE, kind="rlhf_pair")

    assert read.turns("prompt") == [BEST[:1]]
    assert read.turns("chosen") == [[("assistant", "사흘입니다.")]]
    assert read.turns("rejected") == [[("assistant", "몰라요.")]]


def test_a_tree_that_nothing_can_be_learned_of_is_refused(tmp_path):
    rows = [
        message("a", None, "?"),
        message("a.1", "a", "!", deleted=True),
        message("b", None, "?", deleted=True),
        message("c", None, "?", tree_state="aborted_low_grade"),
        message("c.1", "c", "!"),
        message("d.1", "d", "!"),
        message("d.1.1", "d.1", "?"),
        message("c.1", "c", "!"),
    ]
    reasons = dict(Read(tmp_path, rows).refused)

    assert "1 deleted" in reasons[1] and "1 deleted" in reasons[3]
    assert "aborted_low_grade" in reasons[4]
    assert "'d', which the file does not have" in reasons[6] and "no first message leads to it" in reasons[7]
    assert "line 5 already" in reasons[8]


@pytest.mark.parametrize("parent", [["a"], {"id": "a"}, True, "z"])
def test_a_message_that_answers_nothing_that_is_costs_itself(tmp_path, parent):
    rows = [message("a", None, "하나?"), message("a.1", "a", "둘."), {**message("b", "a", "셋."), "parent_id": parent}]
    read = Read(tmp_path, rows)

    assert read.turns() == [[("user", "하나?"), ("assistant", "둘.")]]
    assert [line for line, _ in read.refused] == [3]


def test_ids_may_be_numbers(tmp_path):
    rows = [{**message("a", None, "하나?"), "message_id": 1}, {**message("a.1", "a", "둘."), "message_id": 2}]
    rows[1]["parent_id"] = 1.0

    assert Read(tmp_path, rows).turns() == [[("user", "하나?"), ("assistant", "둘.")]]


def test_a_tree_as_deep_as_no_conversation_is_refused_and_its_neighbour_is_read(tmp_path):
    rows = [message("a", None, "하나?"), message("a.1", "a", "둘."), message("0", None, "?")]
    rows += [
        {"message_id": str(n), "parent_id": str(n - 1), "role": ("prompter", "assistant")[n % 2], "text": f"{n}번째 말"}
        for n in range(1, 3000)
    ]
    read = Read(tmp_path, rows)

    assert read.turns() == [[("user", "하나?"), ("assistant", "둘.")]]
    assert "500 turns" in dict(read.refused)[3]


def turn(key: str, number: Any, role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"conversation_id": key, "turn": number, "role": role, "content": content, **more}


def test_turns_are_put_together_by_their_conversation_and_number(tmp_path):
    rows = [
        turn("x", 2, "assistant", "사흘입니다.", channel="web"),
        turn("y", 1, "user", "주차는요?", channel="app"),
        turn("x", 1, "user", "환불은?", channel="web"),
        turn("y", 1, "assistant", "지하입니다.", channel="app"),
    ]
    read = Read(tmp_path, rows)

    assert read.kind == "sft_pair" and not read.refused
    assert read.turns() == [
        [("user", "환불은?"), ("assistant", "사흘입니다.")],
        [("user", "주차는요?"), ("assistant", "지하입니다.")],
    ]
    assert read.extra[0] == {"conversation_id": "x", "channel": "web"}


def test_turns_of_a_table_are_put_together_by_their_times(tmp_path):
    lines = ["session_id,role,content,created_at"]
    lines += ["s,assistant,사흘입니다.,2026-01-01T10:00:09", "s,user,환불은?,2026-01-01T10:00:01"]

    assert Read(tmp_path, "\n".join(lines), name="log.csv").turns() == [
        [("user", "환불은?"), ("assistant", "사흘입니다.")]
    ]


def test_a_conversation_that_a_turn_is_missing_from_is_refused(tmp_path):
    good = [turn("g", 1, "user", "환불은?"), turn("g", 2, "assistant", "사흘입니다.")]
    rows = [
        *good,
        turn("m", 1, "user", "환불은?"), turn("m", 3, "assistant", "그건 안 됩니다."),
        turn("t", 1, "user", "환불은?"), turn("t", 1, "user", "주차는?"), turn("t", 2, "assistant", "네"),
        turn("n", None, "user", "환불은?"), turn("n", 2, "assistant", "네"),
    ]  # fmt: skip
    read = Read(tmp_path, rows)

    assert read.turns() == [[("user", "환불은?"), ("assistant", "사흘입니다.")]]
    reasons = dict(read.refused)
    assert "the turn 2 of the conversation is missing" in reasons[3]
    assert "two turns of one role have the turn 1" in reasons[5]
    assert "has no turn" in reasons[8]


def test_a_turn_that_cannot_be_read_costs_its_conversation(tmp_path):
    said = [("a", "user", "하나?"), ("a", "assistant", "네"), ("b", "user", "둘?"), ("b", "assistant", "아니요")]
    said += [("c", "user", "셋?"), ("c", "assistant", "셋")]
    lines = [json.dumps({"chat_id": key, "role": role, "content": text}) for key, role, text in said]
    lines.insert(3, '{"chat_id": "b", "role": "assistant", "content": "그')
    read = Read(tmp_path, "\n".join(lines))

    assert [turns[0][1] for turns in read.turns()] == ["하나?", "셋?"]
    assert "line 4" in dict(read.refused)[3]


def test_an_author_is_no_role(tmp_path):
    posts = [{"thread_id": "1", "author": "바다", "text": f"{n}번째 글은 여기까지입니다."} for n in range(2)]

    assert Read(tmp_path, posts, kind="pretrain_corpus").rows.height == 2


MOSS = {
    "conversation_id": 7,
    "meta_instruction": "너는 MOSS이다.",
    "num_turns": 10,
    "chat": {
        f"turn_{n}": {
            "Human": f"<|Human|>: 질문 {n}<eoh>\n",
            "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n" if n != 2 else "<|Inner Thoughts|>: 곰곰이<eot>\n",
            "Commands": "<|Commands|>: None<eoc>\n",
            "Tool Responses": "<|Results|>: None<eor>\n",
            "MOSS": f"<|MOSS|>: 대답 {n}<eom>\n",
        }
        for n in (1, 10, 2)
    },
}


def test_moss_by_numbered_turns(tmp_path):
    read = Read(tmp_path, [MOSS])

    assert read.kind == "sft_pair"
    assert read.turns()[0] == [
        ("system", "너는 MOSS이다."),
        *((role, f"{word} {n}") for n in (1, 2, 10) for role, word in (("user", "질문"), ("assistant", "대답"))),
    ]
    assert read.rows["messages"][0][4]["reasoning_content"] == "곰곰이"


def test_plugins_of_moss_are_refused(tmp_path):
    chat = {"turn_1": MOSS["chat"]["turn_1"] | {"Commands": '<|Commands|>: Search("날씨")<eoc>\n'}}

    assert "plugin" in dict(Read(tmp_path, [MOSS | {"chat": chat}]).refused)[1]


@pytest.mark.parametrize(
    "row",
    [
        {
            "id": 1,
            "num_turns": 1,
            "prefix": "다음은 대화이다.",
            "plain_text": "[Human]: 안녕<eoh> [MOSS]: 반가워요<eoa>",
        },
        {"topic": "인사", "input": "다음은 대화이다.\n[|Human|] 안녕\n[|AI|] 반가워요\n[|Human|] "},
    ],
    ids=["MOSS", "Baize"],
)
def test_speakers_in_brackets(tmp_path, row):
    read = Read(tmp_path, [row])

    assert read.turns() == [[("system", "다음은 대화이다."), ("user", "안녕"), ("assistant", "반가워요")]]


def utterance(speaker: str, form: Any) -> dict[str, Any]:
    return {"id": f"S.{speaker}", "form": form, "original_form": form, "speaker_id": speaker, "note": ""}


def corpus(*documents: dict[str, Any]) -> str:
    about = {"title": "말뭉치", "creator": "국립국어원"}
    return json.dumps({"id": "SDRW2100000001", "metadata": about, "document": list(documents)}, ensure_ascii=False)


def test_a_dialogue_of_the_korean_corpus_is_a_conversation(tmp_path):
    said = [("2", "여행"), ("2", "갈까요?"), ("1", "좋아요."), ("2", "어디로요?"), ("1", "바다로요."), ("2", "네.")]
    document = {"id": "S.1", "metadata": {"topic": "여행"}, "utterance": [utterance(*one) for one in said]}
    crowd = {"id": "S.2", "metadata": {}, "utterance": [utterance(str(n), f"말 {n}") for n in range(3)]}
    read = Read(tmp_path, corpus(document, crowd), name="S.json")

    assert read.kind == "sft_pair"
    assert read.turns() == [
        [("user", "여행\n갈까요?"), ("assistant", "좋아요."), ("user", "어디로요?"), ("assistant", "바다로요.")]
    ]
    assert read.extra[0]["not_answered"] == "네." and read.extra[0]["speakers"] == ["2", "1"]
    assert read.extra[0]["topic"] == "여행" and read.extra[0]["corpus_metadata"]["creator"] == "국립국어원"
    assert "'0'" in dict(read.refused)[2]


def test_prose_of_the_korean_corpus_is_a_document(tmp_path):
    parts = [{"id": f"N.1.{n}", "form": text} for n, text in enumerate(["첫 문단이다.", "둘째 문단이다."])]
    read = Read(tmp_path, corpus({"id": "N.1", "metadata": {"date": "20210101"}, "paragraph": parts}), name="N.json")

    assert read.kind == "pretrain_corpus"
    assert read.rows["text"].to_list() == ["첫 문단이다.\n둘째 문단이다."]
