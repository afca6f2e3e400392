"""Files arrive from wherever they lie, whole and under the names they have, or not at all."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

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


def test_what_is_registered_has_its_files_wherever_registering_was_cut_off(house, tmp_path):
    """Killed at the very moment of registering, it leaves files that nobody registered, and never the reverse."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(ROW, encoding="utf-8")
    second.write_text(ROW * 2, encoding="utf-8")
    code = (
        "import os, sys\n"
        "from llmops_assets.datasets.versions.register import register\n"
        "from llmops_assets.specs.policy import load_policy\n"
        "from resources.artifacts import Artifacts\n"
        "from resources.catalog import Catalog\n"
        "from pathlib import Path\n"
        "from tests.datasets.test_register import spec\n"
        "class Killed(Catalog):\n"
        "    def register_dataset(self, *a):\n"
        "        os.kill(os.getpid(), 9)\n"
        "register(spec(), [sys.argv[3]], artifacts=Artifacts(Path(sys.argv[1])), catalog=Killed(sys.argv[2]),\n"
        "         policy=load_policy(), actor='test')"
    )
    catalog, root = house["catalog"], house["artifacts"].root
    killed = subprocess.run([sys.executable, "-c", code, str(root), catalog.url, str(first)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert catalog.datasets() == []
    uploads = house["artifacts"].upath("uploads", "desk@v1")
    assert [name for name, _ in list_files(uploads)] == ["first.jsonl"]
    assert register(spec(), [second], **house)
    assert [name for name, _ in list_files(uploads)] == ["second.jsonl"]
    with pytest.raises(Conflict, match="other content"):
        register(spec(), [first], **house)
    assert [name for name, _ in list_files(uploads)] == ["second.jsonl"]


def test_of_many_that_register_a_version_at_once_one_does_and_its_files_stay(house, tmp_path):
    files = [tmp_path / f"rows-{number}.jsonl" for number in range(8)]
    for number, file in enumerate(files):
        file.write_text(ROW * (number + 1), encoding="utf-8")

    def one(file) -> bool:
        try:
            return register(spec(), [file], **house)
        except Conflict:
            return False

    with ThreadPoolExecutor(len(files)) as pool:
        new = list(pool.map(one, files))
    assert sum(new) == 1
    uploads = house["artifacts"].upath("uploads", "desk@v1")
    assert [name for name, _ in list_files(uploads)] == [files[new.index(True)].name]
    assert sorted(path.name for path in (house["artifacts"].root / "uploads").iterdir()) == ["desk@v1"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.jsonl", "there is no file"),
        ("memory://nowhere/x.jsonl", "there is no file"),
        ("what://x/y", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(path, message):
    with pytest.raises(SpecError, match=message):
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
