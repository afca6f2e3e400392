"""An erasure in a sealed installation, and one that finds what it cannot remove: without a run of the graph."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.datasets import schema
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.versions import register
from llmops_assets.specs.dataset import DatasetSpec
from resources.catalog import erasures
from resources.encryption import is_sealed
from tests.cli.test_commands import llmops
from tests.erasure.test_erasure import MAIL, NAME, THEIRS, lines, matches, planted


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """An installation with a key, and one version in it with the person in three of its rows."""
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMOPS_ENCRYPTION_KEY", "22" * 32)
    common.wiring.cache_clear()
    w = common.wiring()
    (tmp_path / "rows.jsonl").write_bytes(lines(planted(60, 1, 20)))
    values = {"name": "desk", "version": "v1", "type": "sft_pair", "files": ["rows.jsonl"], "owner": "o"}
    spec = DatasetSpec.model_validate(values | {"description": "d"})
    places = {"artifacts": w.artifacts, "catalog": w.catalog, "policy": w.policy, "actor": "kim"}
    register.register(spec, [tmp_path / "rows.jsonl"], **places)
    files = list_files(w.artifacts.upath("uploads", spec.key))
    rows = pl.concat([batch.rows for batch in ingest(files, "sft_pair", keys=w.keys)])
    written = {"dataset": spec.key, "config_hash": "c"}
    w.store.write(rows, kind="rows", step="dataset", **written)
    raw = [("rows.jsonl", 99, "x", "y", f"{NAME} {MAIL}")]
    w.store.write(
        pl.DataFrame(raw, schema=schema.QUARANTINE, orient="row"), kind="quarantine", step="dataset", **written
    )
    yield w
    common.wiring.cache_clear()


def plain(w, folder: Path) -> dict[str, bytes]:
    """Every file below a folder, opened and unpacked."""
    found = {}
    for path in (p for p in folder.rglob("*") if p.is_file()):
        data = w.keys.open(path.read_bytes(), path)
        found[str(path.relative_to(folder))] = (
            json.dumps(pl.read_parquet(data).to_dicts(), ensure_ascii=False).encode()
            if path.suffix == ".parquet"
            else data
        )
    return found


def holding(files: dict[str, bytes]) -> list[str]:
    return sorted(name for name, data in files.items() if any(text.encode() in data for text in THEIRS))


def forget(*more: str):
    return CliRunner().invoke(app, ["dataset", "forget", "desk", *matches(), "--yes", "--json", *more])


def test_sealed_rows_are_found_erased_and_what_stays_is_sealed(sealed):
    w, root = sealed, sealed.artifacts.root
    assert len(holding(plain(w, Path(root)))) == 3
    done = forget()
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert holding(plain(w, w.settings.root)) == []
    follower = w.artifacts.path("uploads", "desk@v1-e1", "rows.jsonl")
    assert is_sealed(follower.read_bytes())
    assert len(w.keys.open(follower.read_bytes()).splitlines()) == 57
    # The same files, registered by hand, are the same version: the digests agree.
    assert w.catalog.dataset_entry("desk@v1-e1").digest == register_digest(w, follower)
    assert not (Path(root) / "erasures" / "1" / "desk@v1").exists()


def register_digest(w, path: Path) -> str:
    import hashlib

    content = hashlib.sha256(w.keys.open(path.read_bytes())).hexdigest()
    return hashlib.sha256(f"{path.name}\0{content}\n".encode()).hexdigest()


def test_a_name_that_is_none_and_a_run_under_way_are_refused(sealed, monkeypatch):
    import dagster as dg

    from llmops_assets.local.stack import prepare_home

    unknown = CliRunner().invoke(app, ["dataset", "forget", "desk@v1", "--match", NAME])
    assert isinstance(unknown.exception, LookupError) and "without a version" in str(unknown.exception)
    prepare_home(sealed.settings)
    monkeypatch.setenv("DAGSTER_HOME", str(sealed.settings.dagster_home))
    with dg.DagsterInstance.get() as instance:
        tags = {"dagster/partition": "desk@v1"}
        run = instance.create_run_for_job(
            dg.job(name="busy")(lambda: None), tags=tags, status=dg.DagsterRunStatus.STARTED
        )
    code, _, message = llmops("dataset", "forget", "desk", *matches(), "--yes", "--json")
    assert code == 5 and run.run_id[:8] in message
    assert sealed.catalog.dataset_entry("desk@v1").status == "active"


def test_what_it_cannot_remove_is_named_and_keeps_the_erasure_open(sealed):
    w = sealed
    note = w.settings.root / "note-of-a-colleague.txt"
    note.write_text(f"call {MAIL.upper()} back")
    log = w.settings.root / "logs" / "daemon.log"
    log.parent.mkdir()
    log.write_text(f"one\n{NAME} two\nthree\n")
    first = forget()
    assert first.exit_code == 4, first.output + repr(first.exception)
    done = json.loads(first.stdout)
    assert [Path(one["path"]).name for one in done["left"]] == [note.name]
    assert log.read_text().splitlines()[::2] == ["one", "three"] and NAME not in log.read_text()
    assert erasures.erasures(w.catalog)[0].state == done["state"] == "running"
    note.unlink()
    second = forget()
    assert second.exit_code == 0, second.output + repr(second.exception)
    assert [e.state for e in erasures.erasures(w.catalog)] == ["done"]
    assert list(json.loads(second.stdout)["versions"].values()) == ["desk@v1-e1"]
