"""The fast path gives what the slow path gives, row for row and fault for fault; only sooner."""

import json
import random
import unicodedata

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets import schema
from llmops_assets.datasets.reading import fast, raw
from llmops_assets.datasets.reading import ingest as ingest_module
from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits

WORDS = ["통행료", "하이패스", "toll", "", " ", "줄\n바꿈", "탭\t", '따옴표 "', "\\", "é", "가" * 300, "🙂"]


def made(rng: random.Random, shape: str) -> object:
    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randrange(1, 6)))

    metadata = rng.choice(
        [
            {},
            {"metadata": None},
            {"metadata": {"category": rng.choice(["a", "", None]), "quality_score": rng.choice([1, 0.5, None])}},
            {"metadata": {"b": 1, "a": {"c": [1.5, None, text()]}, "source": "web"}, "category": "top"},
            {"id": rng.choice([7, "x", None]), "quality_score": 0.25, "source": None},
        ]
    )
    roles = ("system", "user", "assistant")[rng.randrange(2) :]
    content = {
        "messages": {"messages": [{"role": r, "content": text()} for r in roles]},
        "conversations": {"conversations": [{"from": f, "value": text()} for f in ("human", "gpt")]},
        "alpaca": {"instruction": text(), "input": rng.choice(["", text()]), "output": text()},
        "prompt": {"prompt": text(), "completion": text()},
        "question": {"question": text(), "answer": text()},
        "text": {"text": text()},
    }  # fmt: skip
    return content[shape] | metadata


ODD = [
    "",
    "   ",
    "{broken",
    '{"messages": 5}',
    '{"messages": [{"role": "user", "content": 5}]}',
    '{"messages": [{"role": "user", "content": "널\\u0000"}, {"role": "assistant", "content": "답"}]}',
    '{"messages": [{"role": "손님", "content": "묻"}, {"role": "assistant", "content": "답"}]}',
    '{"prompt": "\\ud800", "completion": "답"}',
    '{"prompt": "두", "completion": "개"} {"prompt": "한", "completion": "줄"}',
    '{"prompt": "묻", "completion": "답", "score": 3}',
    '{"prompt": "묻", "completion": "답", "category": 5}',
    '{"prompt": "묻", "prompt": "또 묻", "completion": "답"}',
    '{"prompt": "묻", "completion": "답", "metadata": {"a": 1, "a": 2}}',
    '{"prompt" : "묻", "completion": "답", "completion": "딴 답"}',
    '{"messages": [{"role": "user", "content": "묻"}, {"role": "assistant", "content": "답", "content": "딴 답"}]}',
    '{"messages": [{"role": "user", "content": ":묻"}, {"role": "assistant", "content": "답", "weight": 0}]}',
    '{"messages": [{"role": "user", "content": ":\\":"}, {"role": "assistant", "content": "답", "name": "b"}]}',
    '{"text": "글", "text": "딴 글"}',
    '{"text": 3}',
    json.dumps({"prompt": unicodedata.normalize("NFD", "한글"), "completion": "답"}, ensure_ascii=False),
    json.dumps({"text": unicodedata.normalize("NFD", "한글")}, ensure_ascii=False),
    "[1]",
    "null",
]


def both(tmp_path, lines: list[str], kind: str, monkeypatch, **options) -> list[tuple[pl.DataFrame, list, dict]]:
    path = UPath(tmp_path / "rows.jsonl")
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))

    def read() -> tuple[pl.DataFrame, list, dict]:
        fates = Fates()
        batches = list(ingest([("rows.jsonl", path)], kind, fates=fates, **options))
        refused = pl.concat([b.quarantine for b in batches]).to_dicts()
        return pl.concat([b.rows for b in batches]), refused, dict(fates.rows)

    quick = read()
    with monkeypatch.context() as patch:
        patch.setattr(fast.Decoder, "decode", lambda *_: None)
        slow = read()
    return [quick, slow]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", ["messages", "conversations", "alpaca", "prompt", "question", "text", "all"])
def test_every_shape_with_and_without_odd_lines(tmp_path, monkeypatch, shape, seed):
    rng = random.Random(f"{shape}{seed}")
    shapes = ["messages", "conversations", "alpaca", "prompt", "question"] if shape == "all" else [shape]
    lines = [json.dumps(made(rng, rng.choice(shapes)), ensure_ascii=rng.random() < 0.5) for _ in range(200)]
    if seed % 2:
        for line in ODD:
            lines.insert(rng.randrange(len(lines)), line)
    monkeypatch.setattr(raw, "BLOCK", 700 if seed > 1 else raw.BLOCK)
    kind = "pretrain_corpus" if shape == "text" else "sft_pair"
    quick, slow = both(tmp_path, lines, kind, monkeypatch, require_category=seed == 3)
    assert quick[0].equals(slow[0])
    assert quick[1] == slow[1]
    assert quick[2] == slow[2]
    assert dict(quick[0].schema) == schema.columns_of(kind)


def test_the_fast_path_is_the_one_that_is_taken(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "묻습니다", "completion": "답합니다"}\n' * 5, encoding="utf-8")
    monkeypatch.setattr("llmops_assets.datasets.reading.ingest._row", None)
    (batch,) = ingest([("rows.jsonl", UPath(tmp_path / "rows.jsonl"))], "sft_pair")
    assert batch.rows.height == 5


def test_a_bad_line_sets_back_its_neighbours_alone_and_the_block_stays_one_table(tmp_path, monkeypatch):
    lines = ['{"prompt": "묻습니다", "completion": "답합니다"}'] * 4_000
    lines[1234] = "{broken"
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    slowly, row = [], ingest_module._row
    monkeypatch.setattr(ingest_module, "_row", lambda *about: slowly.append(about) or row(*about))
    (batch,) = ingest([("rows.jsonl", UPath(tmp_path / "rows.jsonl"))], "sft_pair")
    assert batch.rows.height == 3_999
    assert batch.quarantine["line"].to_list() == [1235]
    assert len(slowly) < 10


@pytest.mark.parametrize("limit", [64, 100, 4096])
def test_long_lines_are_skipped_wherever_a_block_ends(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(raw, "BLOCK", 50)
    rng = random.Random(limit)
    lines, wanted = [], []
    for number in range(1, 60):
        fill = "x" * rng.choice([0, 0, limit - 45, limit, 3 * limit])
        lines.append(f'{{"prompt": "q{fill}", "completion": "a"}}')
        if len(lines[-1]) <= limit:
            wanted.append(number)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    batches = list(ingest([("rows.jsonl", UPath(tmp_path / "rows.jsonl"))], "sft_pair", limits=Limits(line=limit)))
    rows = pl.concat([b.rows for b in batches])
    refused = pl.concat([b.quarantine for b in batches])
    assert rows["line"].to_list() == wanted
    assert refused["line"].to_list() == [n for n in range(1, 60) if n not in wanted]
    assert all(f"longer than {limit:,} bytes" in reason for reason in refused["reason"])
