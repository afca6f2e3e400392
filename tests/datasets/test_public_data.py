"""Real public data that nobody here wrote loads whole; none of it is kept in this repository."""

import json

import polars as pl
import pytest
from upath import UPath

from benchmarks import names as names_benchmark
from llmops_assets.datasets import alignment
from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.recognise import guess
from llmops_assets.records.conversation import calls_of
from llmops_assets.records.datasets import FileAccount
from tests.conftest import PUBLIC_DATA

PUBLIC = [
    ("songys-chatbot/ChatbotData.csv", "sft_pair", None, 11823),
    ("llamafactory/alpaca_en_demo.json", "sft_pair", None, 999),
    ("llamafactory/glaive_toolcall_en_demo.json", "sft_pair", None, 300),
    ("llamafactory/kto_en_demo.json", "kto", None, 300),
    ("llamafactory/dpo_en_demo.json", "rlhf_pair", None, 300),
    ("llamafactory/dpo_zh_demo.json", "rlhf_pair", None, 300),
    ("llamafactory/identity.json", "sft_pair", None, 91),
    ("llamafactory/c4_demo.jsonl", "pretrain_corpus", None, 300),
    ("llamafactory/wiki_demo.txt", "pretrain_corpus", None, 30),
    ("klue/klue-sts-v1.1_dev.json", "embedding_pair", None, 519),
    # Three hypotheses of each premise are one row.
    ("klue/klue-nli-v1.1_dev.json", "embedding_pair", None, 1000),
    ("beep/train.tsv", "pretrain_corpus", {"text": "comments"}, 7896),
    ("unsmile/unsmile_train_v1.0.tsv", "pretrain_corpus", {"text": "문장"}, 15005),
    ("kobest/COPA/test.tsv", "eval_suite", {"question": "sentence", "answer": "Answer"}, 1000),
]


@pytest.mark.parametrize(("name", "dataset_type", "mapping", "count"), PUBLIC)
def test_public_data_loads_whole(name, dataset_type, mapping, count):
    path = PUBLIC_DATA / name
    assert path.exists(), f"{path} is missing: LLMOPS_TEST_DATA names the folder of the public data"
    accounts: dict[str, FileAccount] = {}
    batches = list(ingest([(name, UPath(path))], dataset_type, mapping, accounts=accounts))
    assert accounts[name].missing == 0
    assert sum(batch.rows.height for batch in batches) == count
    assert sum(batch.quarantine.height for batch in batches) == 0


def test_calls_and_tools_of_a_public_file_are_in_its_rows():
    name = "llamafactory/glaive_toolcall_en_demo.json"
    fates = Fates()
    rows = pl.concat([b.rows for b in ingest([(name, UPath(PUBLIC_DATA / name))], "sft_pair", fates=fates)])
    raw = json.loads((PUBLIC_DATA / name).read_text(encoding="utf-8"))
    calls = [turn for row in raw for turn in row["conversations"] if turn["from"] == "function_call"]
    made = [call for row in rows["messages"].to_list() for turn in row for call in calls_of(turn)]
    assert len(made) == len(calls) > 100 and all(isinstance(c["function"]["arguments"], dict) for c in made)
    assert rows["tools"].null_count() == sum(json.loads(row["tools"] or "[]") == [] for row in raw)
    assert {fate.fate for fate in fates.records()} == {"used"}


@pytest.mark.parametrize("at", [0, 1, 4])
def test_answers_of_public_files_stand_where_they_belong_until_one_column_is_moved(at):
    name, dataset_type, mapping, count = PUBLIC[at]
    rows = pl.concat([batch.rows for batch in ingest([(name, UPath(PUBLIC_DATA / name))], dataset_type, mapping)])
    found, windows = alignment.moved(alignment.windows_of([rows], dataset_type, count))
    assert found == [] and windows == -(-count // alignment.WINDOW)
    if dataset_type == "sft_pair":
        # The question of a row with the answer of the one before it.
        before = pl.col("messages").shift(1).list.tail(pl.col("messages").list.len() - 1)
        moved = rows.with_columns(pl.concat_list(pl.col("messages").list.head(1), before).alias("messages"))[1:]
    else:
        moved = rows.with_columns(pl.col("chosen").shift(1))[1:]
    found, windows = alignment.moved(alignment.windows_of([moved], dataset_type, moved.height))
    assert {one.by for one in found} == {1} and len(found) > windows / 10


TYPES = {
    "beep": None,
    "klue/klue-ner": None,
    "klue/klue-nli": "embedding_pair",
    "klue/klue-sts": "embedding_pair",
    "kobest/BoolQ": "rag_qa",
    # The column `question` of COPA holds "cause" or "effect".
    "kobest/COPA": None,
    "kobest/HellaSwag": None,
    "kobest/SentiNeg": "pretrain_corpus",
    "kobest/WiC": "embedding_pair",
    "llamafactory/alpaca": "sft_pair",
    "llamafactory/c4": "pretrain_corpus",
    "llamafactory/dpo": "rlhf_pair",
    "llamafactory/glaive": "sft_pair",
    "llamafactory/identity": "sft_pair",
    "llamafactory/kto": "kto",
    "llamafactory/wiki": "pretrain_corpus",
    "songys": "sft_pair",
    "unsmile": None,
}
"""What the fields of each public file say that it is; None where they say nothing that would be right."""


def test_every_public_file_is_read_to_its_last_line_and_named_for_what_it_is():
    files = sorted(path for path in PUBLIC_DATA.rglob("*.*") if path.name != "README.md" and path.is_file())
    assert len(files) > 25
    for path in files:
        name = str(path.relative_to(PUBLIC_DATA))
        expected = next(kind for start, kind in TYPES.items() if name.startswith(start))
        found = guess([(name, UPath(path))])
        assert found.type == expected, f"{name}: {found.words()}"
        accounts: dict[str, FileAccount] = {}
        batches = list(ingest([(name, UPath(path))], expected or "sft_pair", accounts=accounts))
        account = accounts[name]
        assert account.missing == 0 and account.total > 0, account
        if "WiC" in name:
            # Its label says whether a word means the same, which is no reason to bring two sentences near.
            assert account.rows == 0 and "nothing says what that is" in batches[0].quarantine["reason"][0]
        elif expected:
            assert account.refused == 0, (account, batches[0].quarantine["reason"].head(1))


def test_names_are_found_in_news_and_reviews_of_others():
    read = names_benchmark.sentences(PUBLIC_DATA / "klue" / "klue-ner-v1.1_dev_first1000.tsv")
    found = names_benchmark.ours([text for text, _ in read])
    scores = names_benchmark.scores([spans for _, spans in read], found)
    assert scores["precision"] >= 0.88 and scores["recall"] >= 0.82, scores
    assert scores["precision_overlap"] >= 0.93 and scores["recall_overlap"] >= 0.86, scores
