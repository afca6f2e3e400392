import json
import random
import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array

from examples.expressway import conversations as desk
from examples.expressway import people
from examples.expressway.distinct import Distinct, jaccard, shingles
from examples.expressway.generate import CONVERSATIONS, Planted, free_questions
from examples.expressway.korean import endings, fill
from examples.expressway.tables import intents, table
from llmops_assets.datasets import split
from llmops_assets.datasets.quality import score
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.similarity import duplicates, variants
from llmops_assets.privacy import masking, names, pii
from llmops_assets.specs.policy import load_policy
from tests.examples.conftest import readable

Row = dict[str, Any]


def whole(row: Row) -> str:
    return "\n".join(message["content"] for message in row["messages"])


def question(row: Row) -> str:
    return row["messages"][-2]["content"]


def alike(texts: list[str], at_least: float) -> set[tuple[int, int]]:
    """All pairs of texts with that Jaccard similarity of character 5-grams, found by counting, not by hashing."""
    numbers: dict[str, int] = {}
    rows = [[numbers.setdefault(gram, len(numbers)) for gram in shingles(text)] for text in texts]
    sizes = np.array([len(row) for row in rows])
    columns = np.concatenate([np.array(row) for row in rows])
    starts = np.concatenate(([0], np.cumsum(sizes)))
    matrix = csr_array((np.ones(len(columns), dtype=np.int32), columns, starts), shape=(len(texts), len(numbers)))
    common = (matrix @ matrix.T).tocoo()
    first, second = common.row, common.col
    similarity = common.data / (sizes[first] + sizes[second] - common.data)
    chosen = (first < second) & (similarity >= at_least)
    return set(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True))


def canonical(planted: Planted, name: str, kind: str) -> pl.DataFrame:
    from upath import UPath

    return pl.concat([batch.rows for batch in ingest([(name, UPath(getattr(planted, name)))], kind)])


def test_the_desk_is_as_large_as_it_says(planted: Planted, conversations: list[Row]):
    assert planted.intents >= 40
    assert len(planted.rows_by_category) >= 6
    assert planted.unique >= 3000
    assert planted.rows_by_lang["en"] / planted.unique > 0.08
    lines = planted.conversations.read_text(encoding="utf-8").splitlines()
    assert len(lines) == planted.rows
    repeated = planted.exact_duplicates + planted.near_duplicates
    assert planted.rows == planted.unique + repeated + planted.poor_answers + sum(planted.broken.values())
    assert len(conversations) == planted.rows - sum(planted.broken.values())


def test_every_intent_has_one_answer_and_enough_to_ask_with():
    everything = intents()
    assert len({intent.id for intent in everything}) == len(everything)
    assert len({intent.answer for intent in everything}) == len(everything)
    for intent in everything:
        assert len(set(intent.topics)) == 6, intent.id
        assert len(intent.facts) >= 4, intent.id
        assert len(table("phrases")["asks"][intent.ask]) == 5, intent.id
    topics = [topic for intent in everything for topic in intent.topics]
    assert len(set(topics)) == len(topics)
    stems = [t for intent in everything if intent.ask == "trouble" for t in intent.topics]
    assert all((ord(stem[-1]) - ord("가")) % 28 == 20 for stem in stems), "a trouble is told in the past: it ends in ㅆ"


def test_sound_rows_answer_with_the_answer_of_their_intent(planted: Planted, conversations: list[Row]):
    answers = {intent.id: intent.answer for intent in intents()}
    poor = [row for row in conversations if row["messages"][-1]["content"] in table("phrases")["poor_answers"]]
    assert len(poor) == planted.poor_answers
    for row in conversations:
        if row not in poor:
            assert row["messages"][-1]["content"] == answers[row["metadata"]["intent"]]
    greeted = [row for row in conversations if len(row["messages"]) == 4]
    assert len(greeted) == planted.greeted


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    few = CONVERSATIONS | {"unique": 200, "exact": 5, "near": 5, "poor": 2, "greeted": 10}

    def lines(seed: str) -> list[str]:
        return desk.write_rows(random.Random(seed), few).lines

    assert lines("a") == lines("a")
    assert lines("a") != lines("b")


def test_exactly_the_planted_rows_are_duplicates(planted: Planted, conversations: list[Row]):
    lines = Counter(json.dumps(row["messages"], ensure_ascii=False) for row in conversations)
    assert sum(lines.values()) - len(lines) == planted.exact_duplicates
    once = list({json.dumps(row["messages"], ensure_ascii=False): row for row in conversations}.values())
    assert len(alike([whole(row) for row in once], 0.8)) == planted.near_duplicates
    near = alike([question(row) for row in once], 0.8)
    assert len(near) == planted.near_duplicates
    for first, second in near:
        assert once[first]["metadata"]["phrasing"] == once[second]["metadata"]["phrasing"]


@pytest.mark.parametrize(("name", "kind"), [("conversations", "sft_pair"), ("corpus", "pretrain_corpus")])
def test_the_platform_finds_the_planted_duplicates(planted: Planted, name: str, kind: str):
    found = duplicates.find(canonical(planted, name, kind), kind)
    if name == "conversations":
        assert (found.exact, found.near) == (planted.exact_duplicates, planted.near_duplicates)
    else:
        assert (found.exact, found.near) == (planted.corpus_exact_duplicates, planted.corpus_near_duplicates)


def test_every_broken_row_is_refused_and_no_other(planted: Planted):
    from upath import UPath

    for name, kind, broken in (
        ("conversations", "sft_pair", planted.broken),
        ("corpus", "pretrain_corpus", planted.corpus_broken),
    ):
        batches = list(ingest([(name, UPath(getattr(planted, name)))], kind))
        assert sum(batch.quarantine.height for batch in batches) == sum(broken.values())
    assert set(planted.broken) == {
        "truncated",
        "bad_json",
        "wrong_type",
        "no_assistant",
        "unknown_role",
        "empty_answer",
    }


def test_poor_answers_score_below_the_policy_and_all_others_well_above(planted: Planted):
    rows = canonical(planted, "conversations", "sft_pair")
    lowest = load_policy().datasets.min_quality_score
    scores = score.scores(rows, "sft_pair")["score"]
    assert (scores < lowest).sum() == planted.poor_answers
    assert scores.filter(scores >= lowest).min() > lowest + 0.3


@pytest.mark.parametrize("name", ["conversations", "corpus"])
def test_patterns_find_exactly_the_planted_personal_data(planted: Planted, name: str, request: pytest.FixtureRequest):
    """Names aside: most stand without a label, which takes more than a pattern."""
    if name == "corpus":
        texts, expected = request.getfixturevalue("documents"), planted.corpus_pii
    else:
        rows = request.getfixturevalue("conversations")
        texts, expected = [message["content"] for row in rows for message in row["messages"]], planted.pii
    found = Counter(span.type for text in texts for span in masking.find(text))
    assert {k: v for k, v in found.items() if k != "PERSON"} == {k: v for k, v in expected.items() if k != "PERSON"}
    assert planted.look_alikes > 50


@pytest.mark.parametrize("name", ["conversations", "corpus"])
def test_names_are_found_in_exactly_the_number_planted(planted: Planted, name: str, request: pytest.FixtureRequest):
    if name == "corpus":
        texts, expected = request.getfixturevalue("documents"), planted.corpus_pii
    else:
        rows = request.getfixturevalue("conversations")
        texts, expected = [message["content"] for row in rows for message in row["messages"]], planted.pii
    found = pii.find(pl.Series(texts), pii.Detector(names=names.find_names))
    assert Counter(found["type"].to_list())["PERSON"] == expected["PERSON"]


def test_personal_data_belongs_to_nobody():
    rng, tables = random.Random(0), table("people")
    for _ in range(300):
        someone = people.person(rng, tables)
        digits = re.sub(r"\D", "", someone["rrn"])
        assert people.rrn_check_digit(digits[:12]) != int(digits[12])
        assert re.sub(r"\D", "", someone["phone"])[3] in "01"
        assert someone["email"].endswith(("example.com", "example.org", "example.net"))
        card = re.sub(r"\D", "", someone["card"])
        assert card.startswith("400000")
        assert people.luhn(card[:-1]) == card


def test_the_corpus_holds_no_question_and_no_topic_with_an_ask(conversations: list[Row], documents: list[str]):
    corpus = "\n".join(documents)
    assert "?" not in corpus
    assert not re.search(r"[나까가]요|[하되었]죠", corpus)
    for row in conversations:
        assert question(row) not in corpus
    asks = table("phrases")["asks"]
    by_topic: dict[str, list[str]] = defaultdict(list)
    for intent in intents():
        for topic in intent.topics:
            for ask in asks[intent.ask]:
                by_topic[topic] += [fill(form, {"t": topic}) for form in endings(ask)]
    for topic, cores in by_topic.items():
        named = "\n".join(text for text in documents if topic in text)
        assert not [core for core in cores if core in named], topic


def test_the_corpus_is_prose_with_the_answers_in_it(planted: Planted, documents: list[str]):
    corpus = "\n".join(documents)
    assert 2_000_000 < len(corpus.encode()) < 3_000_000
    for intent in intents():
        assert intent.answer in corpus
        assert all(fact in corpus for fact in intent.facts), intent.id
    assert "<|im_" not in corpus
    assert len(readable(planted.corpus)) == planted.corpus_rows - planted.corpus_broken["truncated"]


def test_the_platform_splits_by_phrasing_and_tests_on_enough(planted: Planted):
    rows = canonical(planted, "conversations", "sft_pair")
    found = duplicates.find(rows, "sft_pair")
    rows = rows.join(found.clusters.filter(~pl.col("kept")), on="row_id", how="anti", maintain_order="left")
    alike = variants.find(rows, "sft_pair")
    assert alike.group_by("variants").len()["len"].max() < 0.02 * rows.height
    clusters = split.together(found.clusters, alike)
    parts = split.assign(rows, "sft_pair", stratify_by="category", group_by="phrasing", clusters=clusters)
    phrasing = split.metadata(rows, "phrasing")
    assert pl.DataFrame({"phrasing": phrasing, "split": parts}).group_by("phrasing").n_unique()["split"].max() == 1
    sizes = dict(parts.value_counts().iter_rows())
    assert sizes["test"] >= 300
    assert sizes["validation"] >= 300
    in_test = rows.filter(parts == "test")
    assert set(in_test["category"]) == set(planted.rows_by_category)


def test_free_questions_are_outside_the_templates(planted: Planted, conversations: list[Row]):
    rows = readable(planted.free_questions)
    assert rows == free_questions()
    assert len(rows) == planted.free_rows == 30
    answers = {intent.id: intent.answer for intent in intents()}
    asked = [shingles(question(row)) for row in conversations]
    for row in rows:
        assert row["messages"][-1]["content"] == answers[row["metadata"]["intent"]]
        grams = shingles(question(row))
        assert max(jaccard(grams, other) for other in asked) < 0.4, question(row)


def test_a_text_too_like_one_before_is_not_accepted():
    distinct = Distinct(0.77)
    assert distinct.accepts("key", "하이패스 단말기 구입은 어떻게 하나요?")
    assert not distinct.accepts("key", "하이패스 단말기 구입은 어떻게 하나요??")
    assert distinct.accepts("key", "휴게소에서 지갑을 주웠는데 어떡하죠?")
    assert distinct.accepts("another key", "하이패스 단말기 구입은 어떻게 하나요?")


def test_a_row_cannot_be_broken_in_an_unknown_way():
    with pytest.raises(ValueError, match="unknown way"):
        desk._broken({"messages": []}, "misspelt", random.Random(0))


def test_too_many_rows_for_the_tables_is_an_error_that_says_what_to_add(monkeypatch: pytest.MonkeyPatch):
    one = intents()[0].model_copy(update={"topics": ("승용차 통행료",)})
    monkeypatch.setattr(desk, "intents", lambda: (one,))
    monkeypatch.setattr(desk, "_ATTEMPTS", 3)
    with pytest.raises(RuntimeError, match="add topics or situations"):
        desk.write_rows(random.Random(0), CONVERSATIONS | {"unique": 2000, "greeted": 0})
