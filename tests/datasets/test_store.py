"""Versions are immutable, shared between neighbours, and verified when read."""

import json
import os

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_assets.datasets.versions.diff import diff
from llmops_assets.records.conversation import FIELDS
from resources import dataset_chunks as module
from resources.artifacts import Artifacts
from resources.dataset_store import DatasetStore, DatasetStoreError
from resources.row_upgrade import MESSAGE


def table(ids: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row_id": [f"{i * 2654435761 % 2**64:016x}" for i in ids],
            "messages": [[{"role": "user", "content": f"질문 {i}"}] for i in ids],
            "category": [None if i % 7 == 0 else f"c{i % 3}" for i in ids],
        },
        schema={
            "row_id": pl.String,
            "messages": pl.List(MESSAGE),
            "category": pl.String,
        },
    )


def write(store: DatasetStore, frame, **changes) -> str:
    names = {"kind": "rows", "dataset": "desk@v1", "step": "dataset", "config_hash": "0", "parent": None}
    return store.write(frame, **(names | changes))


def test_what_was_written_is_read_back(tmp_path):
    store = DatasetStore(tmp_path)
    frame = table(list(range(5000)))
    version = write(store, frame)
    assert store.read(version).equals(frame)
    assert store.read(version, columns=["category"]).columns == ["category"]
    assert store.manifest(version).rows == 5000


def test_writing_the_same_again_changes_nothing(tmp_path):
    store = DatasetStore(tmp_path)
    first = write(store, table(list(range(100))))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert write(store, table(list(range(100)))) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_equal_rows_of_two_datasets_have_equal_content_hashes_and_share_their_chunks(tmp_path):
    store = DatasetStore(tmp_path)
    first = store.manifest(write(store, table(list(range(9000)))))
    second = store.manifest(write(store, table(list(range(9000))), dataset="other@v2", parent=first.id))
    assert first.id != second.id
    assert first.content_hash == second.content_hash
    assert first.chunks == second.chunks


def test_a_small_edit_shares_almost_all_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REACH", 255)
    store = DatasetStore(tmp_path)
    before = store.manifest(write(store, table(list(range(10_000)))))
    after = store.manifest(write(store, table([*range(4000), 999_999, *range(4000, 10_000)])))
    new = {chunk.sha256 for chunk in after.chunks} - {chunk.sha256 for chunk in before.chunks}
    assert len(before.chunks) > 15
    assert len(new) <= 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_the_id_does_not_depend_on_how_the_rows_were_batched(tmp_path_factory, ids, sizes):
    original = module.REACH
    module.REACH = 7
    try:
        store = DatasetStore(tmp_path_factory.mktemp("store"))
        whole = write(store, table(ids))
        batches, start = [table([])], 0
        for size in sizes * (len(ids) // len(sizes) + 1):
            batches.append(table(ids[start : start + size]))
            start += size
        assert write(store, batches) == whole
        assert store.read(whole).equals(table(ids))
    finally:
        module.REACH = original


def test_a_damaged_chunk_is_refused(tmp_path):
    store = DatasetStore(tmp_path)
    version = write(store, table(list(range(10))))
    chunk = next(tmp_path.glob("chunks/*/*.parquet"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(bytes(data))
    with pytest.raises(DatasetStoreError, match="damaged"):
        store.read(version)


def test_an_altered_manifest_and_an_unknown_one_are_refused(tmp_path):
    store = DatasetStore(tmp_path)
    version = write(store, table(list(range(10))))
    path = tmp_path / "manifests" / f"{version}.json"
    path.write_text(path.read_text().replace('"rows": 10', '"rows": 11').replace('"rows":10', '"rows":11'))
    with pytest.raises(DatasetStoreError, match="changed"):
        store.manifest(version)
    with pytest.raises(DatasetStoreError, match="no dataset version"):
        store.read("0" * 32)


def test_a_manifest_that_lacks_a_field_is_named_first(tmp_path):
    store = DatasetStore(tmp_path)
    version = write(store, table(list(range(10))))
    path = tmp_path / "manifests" / f"{version}.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "step"}))
    with pytest.raises(DatasetStoreError, match=rf"{version}.json is not a manifest \(step: Field required\)") as error:
        store.manifest(version)
    # What shows the first cause of a failed step shows these words.
    assert error.value.__cause__ is None


def test_rows_that_an_earlier_version_stored_are_read_as_rows_of_today(tmp_path):
    store = DatasetStore(tmp_path)
    before = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    turns = [{"role": "user", "content": "묻습니다"}, {"role": "assistant", "content": "답합니다"}]
    stored = pl.DataFrame(
        {"row_id": ["a", "b"], "messages": [turns, []], "extra": ["{}", "{}"]},
        schema={"row_id": pl.String, "messages": before, "extra": pl.String},
    )
    version = write(store, stored)
    read = store.read(version)
    assert read.columns == ["row_id", "messages", "tools", "extra"]
    assert read.schema["messages"] == pl.List(MESSAGE) and read.schema["tools"] == pl.String
    assert read["messages"].to_list() == [[turn | dict.fromkeys(FIELDS[2:]) for turn in turns], []]
    assert read["tools"].to_list() == [None, None]
    assert store.read(version, ["tools", "row_id"]).to_dicts() == [{"tools": None, "row_id": i} for i in "ab"]
    assert store.read(version, ["row_id"]).columns == ["row_id"]


def test_a_version_of_before_is_compared_with_one_of_today(tmp_path):
    store = DatasetStore(tmp_path)
    turns = [{"role": "user", "content": "묻습니다"}, {"role": "assistant", "content": "답합니다"}]
    columns = {"row_id": ["a", "b"], "messages": [turns, turns], "extra": ["{}", "{}"]}
    before = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    old = pl.DataFrame(columns, schema={"row_id": pl.String, "messages": before, "extra": pl.String})
    types = {"row_id": pl.String, "messages": pl.List(MESSAGE), "tools": pl.String, "extra": pl.String}
    new = pl.DataFrame(columns | {"tools": None}, schema=types)
    found = diff(store, *(store.manifest(write(store, frame)) for frame in (old, new)))
    assert (found.added, found.removed, found.changed, found.unchanged) == (0, 0, 0, 2)


def test_an_empty_table_keeps_its_columns(tmp_path):
    store = DatasetStore(tmp_path)
    assert store.read(write(store, table([]))).schema == table([]).schema


def test_the_store_works_on_a_remote_file_system():
    store = DatasetStore("memory://versions")
    assert store.read(write(store, table([1, 2]))).equals(table([1, 2]))


@pytest.mark.parametrize("part", ["../x", "/etc/passwd", "a/../../b", "", "a\\..\\b", "nul\0"])
def test_no_artifact_name_leads_out_of_the_root(tmp_path, part):
    with pytest.raises(ValueError, match="not a path inside"):
        Artifacts(tmp_path).path("uploads", part)


def test_a_symbolic_link_out_of_the_root_is_refused(tmp_path):
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path, tmp_path / "root" / "link")
    with pytest.raises(ValueError, match="symbolic link"):
        Artifacts(tmp_path / "root").path("link", "x")


def test_an_interrupted_write_leaves_the_old_content(tmp_path):
    artifacts = Artifacts(tmp_path)
    artifacts.write_text("첫째", "a", "b.txt")
    with pytest.raises(UnicodeEncodeError):
        artifacts.write_text("\ud800", "a", "b.txt")
    assert artifacts.read_text("a", "b.txt") == "첫째"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]
