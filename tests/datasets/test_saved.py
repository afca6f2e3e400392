"""Folders that `save_to_disk` wrote, and Arrow files from elsewhere, damaged and hostile ones among them."""

import json

import polars as pl
import pyarrow as pa
import pytest
from upath import UPath

from llmops_assets.datasets.reading.accounting import in_words, unaccounted
from llmops_assets.datasets.reading.arrow_stream import walk
from llmops_assets.datasets.reading.hub import sort_out
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits, RowFault
from llmops_assets.datasets.reading.readers import all_files

ROWS = [
    {
        "messages": [{"role": "user", "content": f"{i}번 물음"}, {"role": "assistant", "content": f"{i}번 답"}],
        "source": "x",
    }
    for i in range(5)
]


def read(files, type_="sft_pair", **more):
    accounts = {}
    batches = list(ingest(files, type_, accounts=accounts, **more))
    rows, refused = pl.concat([b.rows for b in batches]), pl.concat([b.quarantine for b in batches])
    assert not unaccounted(accounts.values())
    return rows, refused, list(accounts.values())


def test_a_saved_dataset_gives_its_rows_and_its_splits_and_no_caches(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    named = ClassLabel(names=["entailment", "neutral", "contradiction"])
    features = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": named})
    pairs = [{"premise": f"{i} 전제", "hypothesis": f"{i} 가설", "label": i % 3} for i in range(6)]
    both = {"train": Dataset.from_list(pairs, features), "test": Dataset.from_list(pairs[:3], features)}
    DatasetDict(both).save_to_disk(tmp_path / "nli", num_shards={"train": 2, "test": 1})
    # What `map` leaves beside the data: the same rows once more.
    cache = tmp_path / "nli/train/cache-1f2e.arrow"
    cache.write_bytes((tmp_path / "nli/test/data-00000-of-00001.arrow").read_bytes())

    folder = sort_out(all_files(UPath(tmp_path / "nli")))
    assert {split: len(names) for split, names in folder.splits.items()} == {"train": 2, "test": 1}
    assert [name for name, _ in folder.data if "cache" in name] == []
    assert "left by map or filter" in folder.left_out["train/cache-1f2e.arrow"]
    assert not folder.notes
    rows, refused, accounts = read(folder.data, "embedding_pair")
    assert set(refused["reason"]) and all("contradict" in r or "positive" in r for r in refused["reason"]), refused
    assert in_words(accounts).startswith("9 rows = ")
    # The numbers are classes with names: what entails is a positive, what contradicts a negative.
    assert {text for texts in rows["positives"] for text in texts} == {"0 가설", "3 가설"}

    (tmp_path / "nli/train/data-00001-of-00002.arrow").unlink()
    assert "data-00001-of-00002.arrow" in sort_out(all_files(UPath(tmp_path / "nli"))).notes[0]


def written(path, rows, compression=None, file=False):
    table = pa.Table.from_pylist(rows)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened = pa.ipc.new_file if file else pa.ipc.new_stream
    with opened(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return UPath(path)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize(("name", "file"), [("a.arrow", False), ("a.feather", True)])
def test_streams_and_files_compressed_or_not_give_the_same_rows(tmp_path, name, file, compression):
    path = written(tmp_path / name, ROWS, compression, file)
    rows, refused, accounts = read([(name, path)])
    assert (rows.height, refused.height, accounts[0].total, accounts[0].unit) == (5, 0, 5, "rows")
    assert [m["content"] for m in rows["messages"][4]] == ["4번 물음", "4번 답"]


def test_what_is_missing_of_a_file_is_refused_and_what_came_before_stands(tmp_path):
    path = written(tmp_path / "a.arrow", ROWS)
    whole = path.read_bytes()
    for end in range(1, len(whole) - 8, 41):
        path.write_bytes(whole[:end])
        rows, refused, _ = read([("a.arrow", path)])
        assert rows.height < 5 or end > len(whole) - 16
        assert refused.height == 1 or rows.height == 5, end


def test_any_changed_byte_gives_rows_or_a_reason(tmp_path):
    path = written(tmp_path / "a.arrow", ROWS)
    whole = bytearray(path.read_bytes())
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 0xFF
        path.write_bytes(bytes(changed))
        read([("a.arrow", path)])


def test_a_file_that_expands_beyond_reason_is_refused_before_it_does(tmp_path):
    bomb = written(tmp_path / "a.arrow", [{"text": "가" * 30_000_000}], "zstd")
    assert bomb.stat().st_size < 100_000
    assert walk(bomb.open("rb")).expanded > 90_000_000
    _, refused, _ = read([("a.arrow", bomb)], "pretrain_corpus")
    assert "expands to more than" in refused["reason"][0]

    # One text of a dictionary, meant by many rows.
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000), pa.array(["나" * 1_000]))
    batch = pa.record_batch({"text": texts})
    with pa.ipc.new_stream(str(tmp_path / "b.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    _, refused, _ = read([("b.arrow", UPath(tmp_path / "b.arrow"))], "pretrain_corpus", limits=Limits(file=2**26))
    assert "expands to more than" in refused["reason"][0]


def test_what_is_no_arrow_file_says_what_it_is(tmp_path):
    for content, reason in (
        (b"FEA1 old", "version 1"),
        (b"hello, world, this is text", "not an Arrow"),
        (b"", "empty"),
    ):
        (tmp_path / "a.arrow").write_bytes(content)
        with pytest.raises(RowFault, match=reason):
            walk((tmp_path / "a.arrow").open("rb"))
    written(tmp_path / "b.jsonl", ROWS, file=True)
    _, refused, _ = read([("b.jsonl", UPath(tmp_path / "b.jsonl"))])
    assert "let its name end in .arrow" in refused["reason"][0]


def test_a_state_that_nobody_can_read_leaves_nothing_out(tmp_path):
    written(tmp_path / "data-00000-of-00001.arrow", ROWS)
    for state in ("{", "[]", json.dumps({"_data_files": "x"}), json.dumps({"_data_files": [1, None]})):
        (tmp_path / "state.json").write_text(state)
        assert [name for name, _ in sort_out(all_files(UPath(tmp_path))).data] == ["data-00000-of-00001.arrow"]
