"""KoBEST and KLUE, as published, become suites whole; none of them is kept in this repository."""

import pytest

from llmops_assets.evaluation.formats import FORMATS, rows_of
from tests.conftest import PUBLIC_DATA

PUBLISHED = [
    ("kobest-boolq", "kobest/BoolQ/test.tsv", 1404, {"예": 705, "아니요": 699}),
    ("kobest-copa", "kobest/COPA/test.tsv", 1000, None),
    ("kobest-hellaswag", "kobest/HellaSwag/test.tsv", 500, None),
    ("kobest-sentineg", "kobest/SentiNeg/test.tsv", 397, {"긍정": 200, "부정": 197}),
    ("kobest-wic", "kobest/WiC/test.tsv", 1260, {"예": 615, "아니요": 645}),
    ("klue-nli", "klue/klue-nli-v1.1_dev.json", 3000, {"참": 1000, "알 수 없음": 1000, "거짓": 1000}),
    ("klue-sts", "klue/klue-sts-v1.1_dev.json", 519, {"예": 220, "아니요": 299}),
    ("klue-ner", "klue/klue-ner-v1.1_dev_first1000.tsv", 1000, None),
]


@pytest.mark.parametrize(("name", "path", "count", "labels"), PUBLISHED)
def test_a_published_benchmark_is_read_whole(name: str, path: str, count: int, labels: dict | None) -> None:
    rows = rows_of(name, PUBLIC_DATA / path)
    answers = [row["messages"][-1]["content"] for row in rows]
    assert len(rows) == count
    if labels:
        assert {label: answers.count(label) for label in labels} == labels
    if FORMATS[name].spec.judge == "multiple_choice":
        assert all(answer in row["metadata"]["choices"] for answer, row in zip(answers, rows, strict=True))
    else:
        # Every entity that is asked for stands in its sentence.
        named = [
            (row["messages"][0]["content"], part.rpartition(":")[0])
            for row, answer in zip(rows, answers, strict=True)
            for part in answer.split("; ")
            if answer != "없음"
        ]
        assert len(named) > 2000 and all(text in question for question, text in named)
