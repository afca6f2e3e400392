"""Real public data that nobody here wrote loads whole; none of it is kept in this repository."""

import pytest
from upath import UPath

from benchmarks import names as names_benchmark
from llmops_assets.datasets.reading.ingest import ingest
from tests.conftest import PUBLIC_DATA

PUBLIC = [
    ("songys-chatbot/ChatbotData.csv", "sft_pair", None, 11823),
    ("llamafactory/alpaca_en_demo.json", "sft_pair", None, 999),
    ("llamafactory/glaive_toolcall_en_demo.json", "sft_pair", None, 300),
    ("llamafactory/kto_en_demo.json", "sft_pair", None, 300),
    ("llamafactory/dpo_zh_demo.json", "rlhf_pair", None, 300),
    ("llamafactory/c4_demo.jsonl", "pretrain_corpus", None, 300),
    ("llamafactory/wiki_demo.txt", "pretrain_corpus", None, 30),
    ("klue/klue-sts-v1.1_dev.json", "embedding_pair", None, 519),
    ("beep/train.tsv", "pretrain_corpus", {"text": "comments"}, 7896),
    ("unsmile/unsmile_train_v1.0.tsv", "pretrain_corpus", {"text": "문장"}, 15005),
    ("kobest/COPA/test.tsv", "eval_suite", {"question": "sentence", "answer": "Answer"}, 1000),
]


@pytest.mark.parametrize(("name", "dataset_type", "mapping", "count"), PUBLIC)
def test_public_data_loads_whole(name, dataset_type, mapping, count):
    path = PUBLIC_DATA / name
    assert path.exists(), f"{path} is missing: LLMOPS_TEST_DATA names the folder of the public data"
    batches = list(ingest([(name, UPath(path))], dataset_type, mapping))
    assert sum(batch.rows.height for batch in batches) == count
    assert sum(batch.quarantine.height for batch in batches) == 0


def test_names_are_found_in_news_and_reviews_of_others():
    read = names_benchmark.sentences(PUBLIC_DATA / "klue" / "klue-ner-v1.1_dev_first1000.tsv")
    found = names_benchmark.ours([text for text, _ in read])
    scores = names_benchmark.scores([spans for _, spans in read], found)
    assert scores["precision"] >= 0.88 and scores["recall"] >= 0.82, scores
    assert scores["precision_overlap"] >= 0.93 and scores["recall_overlap"] >= 0.86, scores
