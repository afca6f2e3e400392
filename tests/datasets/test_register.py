"""Files arrive from wherever they lie, whole and under the names they have, or not at all."""

import fsspec
import pytest
from upath import UPath

from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.versions.register import find_files, register
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import load_policy
from resources.artifacts import Artifacts
from resources.catalog import Catalog, Conflict, pointers
from resources.encryption import Keyring, new_key

ROW = '{"prompt": "묻습니다", "completion": "답합니다"}\n'


@pytest.fixture
def house(tmp_path) -> dict:
    return {
        "artifacts": Artifacts(tmp_path / "artifacts"),
        "catalog": Catalog(f"sqlite:///{tmp_path / 'catalog.db'}"),
        "policy": load_policy(),
        "actor": "test",
    }


def spec(version: str = "v1") -> DatasetSpec:
    return DatasetSpec.model_validate(
        {"name": "desk", "version": version, "type": "sft_pair", "files": ["x"], "owner": "o", "description": "d"}
    )


def test_a_url_of_any_file_system_and_a_folder_with_folders_in_it(house, tmp_path):
    with fsspec.open("memory://bucket/far.jsonl", "w") as file:
        file.write(ROW)
    for name in ("rows.jsonl", "2026/rows.jsonl"):
        path = tmp_path / "near" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROW, encoding="utf-8")
    assert register(spec(), ["memory://bucket/far.jsonl", tmp_path / "near"], **house)
    uploads = house["artifacts"].upath("uploads", "desk@v1")
    assert [name for name, _ in list_files(uploads)] == ["2026/rows.jsonl", "far.jsonl", "rows.jsonl"]
    assert all(path.read_text(encoding="utf-8") == ROW for _, path in list_files(uploads))
    # The same files in another order are the same version.
    assert not register(spec(), [str(tmp_path / "near"), "memory://bucket/far.jsonl"], **house)


def test_a_link_out_of_the_folder_is_refused_and_nothing_is_registered(house, tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "rows.jsonl").symlink_to(tmp_path / "secret")
    with pytest.raises(SpecError, match="leads out of"):
        register(spec(), [tmp_path / "near"], **house)
    assert house["catalog"].datasets() == []
    assert list(house["artifacts"].root.rglob("*.jsonl")) == []


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("gone.jsonl", "there is no file"),
        ("memory://nowhere/x.jsonl", "there is no file"),
        ("what://x/y", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(path, told):
    with pytest.raises(SpecError, match=told):
        find_files([path])


def test_a_version_is_not_called_like_a_tag(house, tmp_path):
    (tmp_path / "rows.jsonl").write_text(ROW, encoding="utf-8")
    register(spec(), [tmp_path / "rows.jsonl"], **house)
    pointers.move(house["catalog"], "desk", "prod", "v1", "test")
    for taken in ("prod", "current"):
        with pytest.raises(Conflict, match="is a tag"):
            register(spec(taken), [UPath(tmp_path / "rows.jsonl")], **house)


def test_files_go_to_a_remote_artifact_root_and_come_back_as_rows(tmp_path):
    root = f"memory://{tmp_path.name}-uploads"
    keys = Keyring.parse(new_key())
    artifacts, catalog = Artifacts(root, keys), Catalog(f"sqlite:///{tmp_path / 'remote.db'}")
    line = '{"prompt": "통행료는 얼마예요?", "completion": "1,200원입니다."}\n'
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_text(line * 3, encoding="utf-8")
    (tmp_path / "rows" / "b.jsonl").write_text(line, encoding="utf-8")
    desk = spec()
    # Left by a copying that was cut off before anything was registered.
    artifacts.write_bytes(b"half", "uploads", desk.key, "old.jsonl")

    def add() -> bool:
        return register(
            desk, [tmp_path / "rows"], artifacts=artifacts, catalog=catalog, policy=load_policy(), actor="kim"
        )

    assert add() and not add()
    kept = list_files(artifacts.upath("uploads", desk.key))
    assert [name for name, _ in kept] == ["a.jsonl", "b.jsonl"]
    assert all(line.encode() not in path.read_bytes() for _, path in kept), "they are sealed"
    assert sum(batch.rows.height for batch in ingest(kept, "sft_pair", keys=keys)) == 4
    (tmp_path / "rows" / "a.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(Conflict):
        add()
    assert sum(b.rows.height for b in ingest(kept, "sft_pair", keys=keys)) == 4, "what was registered stays"
