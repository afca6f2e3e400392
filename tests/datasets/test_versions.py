"""Versions as one knows them from git: what changed, who made it, what a name points to, and the way back."""

import json
from pathlib import Path

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets import schema
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.versions.checkout import checkout
from llmops_assets.datasets.versions.diff import diff
from llmops_assets.datasets.versions.history import history
from llmops_assets.specs.dataset import DatasetSpec
from resources import dataset_chunks
from resources.catalog import Catalog, Conflict, NotFound, pointers
from resources.dataset_store import DatasetStore
from resources.records import Records


def chat(number: int, answer: str | None = None, **metadata: object) -> dict:
    return {
        "messages": [
            {"role": "user", "content": f"{number}번 창구는 어디인가요?"},
            {"role": "assistant", "content": answer or f"{number}번 창구는 {number % 9}층에 있습니다."},
        ],
        "metadata": {"id": number, **metadata},
    }


def rows_of(folder: Path, rows: list[dict], name: str = "rows.jsonl", kind: str = "sft_pair") -> pl.DataFrame:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    batches = list(ingest([(name, UPath(folder / name))], kind))
    assert not any(batch.quarantine.height for batch in batches)
    return pl.concat([batch.rows for batch in batches])


@pytest.fixture
def store(tmp_path, monkeypatch) -> DatasetStore:
    monkeypatch.setattr(dataset_chunks, "REACH", 31)
    return DatasetStore(tmp_path / "store")


def write(store: DatasetStore, frame: pl.DataFrame, key: str = "desk@v1", config: object = None) -> str:
    return store.write(frame, kind="rows", dataset=key, step="dataset", config_hash=store.keep_config(config))


def test_a_row_put_in_at_the_top_leaves_the_chunks_below_alone(tmp_path, store):
    base = [chat(n) for n in range(2000)]
    before = store.manifest(write(store, rows_of(tmp_path, base)))
    frame = rows_of(tmp_path, [chat(9999), *base])
    after = store.manifest(write(store, frame))
    assert len(before.chunks) > 20
    assert len({c.sha256 for c in after.chunks} - {c.sha256 for c in before.chunks}) <= 2
    assert store.read(after.id).equals(frame)
    assert store.read(after.id)["line"].to_list() == list(range(1, 2002))


def test_another_name_of_the_same_file_makes_no_other_chunks(tmp_path, store):
    base = [chat(n) for n in range(300)]
    before = store.manifest(write(store, rows_of(tmp_path, base, "desk-v1.jsonl")))
    after = store.manifest(write(store, rows_of(tmp_path / "new", base, "desk-v2.jsonl"), "desk@v2"))
    assert [c.sha256 for c in before.chunks] == [c.sha256 for c in after.chunks]
    assert store.read(after.id)["file"].unique().to_list() == ["desk-v2.jsonl"]
    assert store.read(after.id, ["line", "file"]).row(5) == (6, "desk-v2.jsonl")
    mixed = pl.concat([rows_of(tmp_path, base[:20], name) for name in ("a.jsonl", "b.jsonl")])
    assert store.read(write(store, mixed, "desk@v3")).equals(mixed)


def test_a_diff_names_added_removed_changed_and_relabelled_rows(tmp_path, store):
    base = [chat(n) for n in range(1000)]
    edited = list(base)
    edited[500] = chat(500, "이사했습니다.")
    edited[700] = chat(700, category="new")
    del edited[100]
    edited.insert(300, chat(7777))
    edited += [chat(8888), chat(8889)]
    before = store.manifest(write(store, rows_of(tmp_path, base)))
    after = store.manifest(write(store, rows_of(tmp_path, edited)))
    found = diff(store, before, after)
    assert (found.added, found.removed, found.changed, found.relabelled) == (3, 1, 1, 1)
    assert found.unchanged == 997
    assert found.shared_chunks > 0
    by_kind = {
        kind: [e for e in found.examples if e["change"] == kind] for kind in ("changed", "relabelled", "removed")
    }
    (changed,) = by_kind["changed"]
    assert changed["line"] == 501
    assert changed["fields"] == {
        "messages[1].content": {"before": "500번 창구는 5층에 있습니다.", "after": "이사했습니다."}
    }
    (relabelled,) = by_kind["relabelled"]
    assert relabelled["fields"] == {"category": {"before": None, "after": "new"}}
    (removed,) = by_kind["removed"]
    assert removed["fields"]["messages[0].content"] == {"before": "100번 창구는 어디인가요?", "after": None}
    assert diff(store, after, before).removed == 3
    assert diff(store, before, before).unchanged == 1000


def test_a_key_says_which_row_became_which_wherever_it_stands(tmp_path, store):
    base = [chat(n) for n in range(200)]
    moved = [*base[1:], chat(0, "옮기고 고쳤습니다.")]
    before, after = (store.manifest(write(store, rows_of(tmp_path, rows))) for rows in (base, moved))
    assert (diff(store, before, after).changed, diff(store, before, after).added) == (0, 1)
    found = diff(store, before, after, key="id")
    assert (found.changed, found.added, found.removed) == (1, 0, 0)


def test_examples_are_few_and_long_texts_are_cut_around_the_difference(tmp_path, store):
    long = "가" * 5000
    base, other = [chat(n, long) for n in range(60)], [chat(n, f"{long[:4000]}나{long[4000:]}") for n in range(60)]
    before, after = (store.manifest(write(store, rows_of(tmp_path, rows))) for rows in (base, other))
    found = diff(store, before, after, limit=3)
    assert found.changed == 60 and len(found.examples) == 3
    text = found.examples[0]["fields"]["messages[1].content"]["after"]
    assert len(text) < 130 and "나" in text


def test_tables_of_different_types_are_not_compared(tmp_path, store):
    chats = store.manifest(write(store, rows_of(tmp_path, [chat(1)])))
    texts = store.manifest(write(store, rows_of(tmp_path, [{"text": "글"}], kind="pretrain_corpus")))
    with pytest.raises(ValueError, match="not rows of one type"):
        diff(store, chats, texts)


def test_the_history_names_the_step_its_configuration_and_what_changed_in_it(tmp_path, store):
    base = [chat(n) for n in range(300)]
    write(store, rows_of(tmp_path, base), "desk@v1", {"type": "sft_pair", "mapping": None})
    write(store, rows_of(tmp_path, base[:-1]), "desk@v2", {"type": "sft_pair", "mapping": {"answer": "회신"}})
    write(store, rows_of(tmp_path, base), "other@v1")
    first, second = history(store, ["desk@v1", "desk@v2"], Records(tmp_path / "records"))
    assert [first.version, first.step, first.rows, second.rows] == ["desk@v1", "dataset", 300, 299]
    assert first.new_bytes == first.bytes > second.new_bytes > 0
    assert second.changes == {"mapping.answer": (None, "회신")}
    assert first.at <= second.at


EXAMPLES = {
    "sft_pair": chat(1, category="toll", source="web", quality_score=0.5, user={"id": 7}),
    "rlhf_pair": {"prompt": "고를까?", "chosen": "좋은 답", "rejected": "나쁜 답", "metadata": {"category": "a"}},
    "rag_qa": {"question": "왜?", "answer": "그래서", "positives": ["글"], "negatives": ["딴 글"]},
    "kto": {"prompt": "고를까?", "completion": "나쁜 답", "label": False, "metadata": {"category": "a"}},
    "embedding_pair": {"anchor": "가", "positives": ["나"], "negatives": []},
    "pretrain_corpus": {"text": "글 하나"},
    "eval_suite": chat(2),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("kind", list(schema.CONTENT))
def test_what_is_checked_out_is_the_same_version_when_registered_again(tmp_path, kind, suffix):
    rows = rows_of(tmp_path, [EXAMPLES[kind]], kind=kind)
    target = tmp_path / "out" / f"rows{suffix}"
    assert checkout([rows], kind, target) == 1
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    if suffix == ".parquet":
        assert pl.read_parquet(target).equals(rows)
        return
    (batch,) = ingest([("rows.jsonl", UPath(target))], kind)
    assert batch.rows.equals(rows)


def test_a_checkout_in_a_strange_format_leaves_the_file_that_was_there(tmp_path):
    (tmp_path / "rows.xlsx").write_text("mine")
    with pytest.raises(ValueError, match=r"should end in one of .jsonl"):
        checkout([schema.empty_frame("sft_pair")], "sft_pair", tmp_path / "rows.xlsx")
    assert (tmp_path / "rows.xlsx").read_text() == "mine"


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    for version in ("v1", "v2", "v3"):
        spec = {"name": "desk", "version": version, "type": "sft_pair", "files": ["a"], "owner": "o"}
        catalog.register_dataset(DatasetSpec.model_validate(spec | {"description": "d"}), version)
    return catalog


def test_a_tag_means_the_version_it_was_moved_to_last(catalog):
    assert pointers.resolve(catalog, "desk@v1") == "desk@v1"
    assert pointers.resolve(catalog, "desk") == pointers.resolve(catalog, "desk@current") == "desk@v3"
    assert pointers.move(catalog, "desk", "prod", "v1", "kim") is None
    assert pointers.move(catalog, "desk", "prod", "v2", "kim") == "v1"
    assert pointers.resolve(catalog, "desk@prod") == "desk@v2"
    line = catalog.audit_log(1)[0]
    assert (line["actor"], line["action"], line["target"]) == ("kim", "dataset.tag", "desk@prod")
    assert line["detail"] == {"from": "v1", "to": "v2"}


def test_a_rollback_goes_back_again_and_again_and_a_new_version_goes_on(catalog):
    for wanted in ("v2", "v1"):
        assert pointers.previous(catalog, "desk", "current") == wanted
        pointers.move(catalog, "desk", "current", wanted, "kim", action="rollback")
        assert pointers.resolve(catalog, "desk") == f"desk@{wanted}"
    assert pointers.previous(catalog, "desk", "current") is None
    spec = {"name": "desk", "version": "v4", "type": "sft_pair", "files": ["a"], "owner": "o", "description": "d"}
    catalog.register_dataset(DatasetSpec.model_validate(spec), "v4")
    assert pointers.resolve(catalog, "desk") == "desk@v4"
    assert pointers.previous(catalog, "desk", "current") == "v1"


def test_a_tag_is_no_version_and_points_to_one_that_is_there(catalog):
    with pytest.raises(Conflict, match="is a version"):
        pointers.move(catalog, "desk", "v2", "v1", "kim")
    with pytest.raises(NotFound, match="no dataset version"):
        pointers.move(catalog, "desk", "prod", "v9", "kim")
    with pytest.raises(NotFound, match=r"no version or tag 'prod'; versions: v3, v2, v1; tags: current"):
        pointers.resolve(catalog, "desk@prod")
    with pytest.raises(NotFound, match="there is no dataset 'desc'; known are: desk"):
        pointers.resolve(catalog, "desc@v1")
