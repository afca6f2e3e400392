"""Dagster's files are as its own storage leaves them, with fewer engines made."""

import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from resources import dagster_storage


@pytest.fixture
def home(tmp_path: Path) -> Path:
    dagster_storage.share_engines()
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path


def materialized(home: Path, asset: str = "a") -> int:
    """Report an asset as materialised; how often it is by now."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        create_run_for_test(instance)
        instance.report_runless_asset_event(dg.AssetMaterialization(asset))
        assert instance.all_instigator_state() == [] and instance.schedule_storage.supports_batch_queries
        assert len(instance.get_runs()) == len(instance.fetch_materializations(dg.AssetKey(asset), limit=9).records)
        return len(instance.get_runs())


def test_what_one_instance_writes_another_reads(home: Path) -> None:
    assert [materialized(home) for _ in range(3)] == [1, 2, 3]
    files = {str(path.relative_to(home)) for path in home.rglob("*.db")}
    assert {"history/runs.db", "history/runs/index.db", "schedules/schedules.db"} <= files


def test_two_homes_are_two(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copy(home / "dagster.yaml", other)
    assert (materialized(home), materialized(other), materialized(home)) == (1, 1, 2)


def test_a_home_that_was_emptied_is_laid_out_anew(home: Path) -> None:
    assert materialized(home) == 1
    for folder in ("history", "schedules"):
        shutil.rmtree(home / folder)
    assert [materialized(home), materialized(home)] == [1, 2]


def test_an_instance_that_is_opened_again_makes_no_engine_and_asks_for_no_revision(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialized(home)
    asked = []
    for module in ("runs.sqlite.sqlite_run_storage", "schedules.sqlite.sqlite_schedule_storage"):
        monkeypatch.setattr(f"dagster._core.storage.{module}.check_alembic_revision", lambda *_: asked.append(1))
        monkeypatch.setattr(f"dagster._core.storage.{module}.create_engine", lambda *_a, **_k: asked.append(1))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert len(instance.get_runs()) == 1 and instance.all_instigator_state() == []
    assert not asked


def logs(home: Path) -> dict[str, int]:
    """Bytes of the write-ahead logs in the home, by file."""
    return {path.name: path.stat().st_size for path in home.rglob("*.db-wal")}


def test_what_is_written_stays_in_the_log_until_the_file_is_closed(home: Path) -> None:
    materialized(home)
    materialized(home)
    # Else each of its transactions would have been the last to close the file, and have written its log back.
    assert {"index.db-wal", "runs.db-wal", "schedules.db-wal"} <= logs(home).keys()
    with sqlite3.connect(home / "history" / "runs" / "index.db") as reading:
        before = reading.execute("select count(*) from event_logs").fetchone()
    reading.close()
    dagster_storage._IDLE.close()
    assert logs(home) == {}
    with sqlite3.connect(home / "history" / "runs" / "index.db") as reading:
        assert reading.execute("select count(*) from event_logs").fetchone() == before


def test_a_file_that_was_put_in_the_place_of_another_is_the_one_that_is_written_to(home: Path, tmp_path: Path) -> None:
    materialized(home)
    dagster_storage._IDLE.close()
    kept = shutil.copytree(home / "history", tmp_path / "kept")
    assert materialized(home) == 2
    # As a restore does: the platform's processes are down, but this one has the files open still.
    shutil.rmtree(home / "history")
    shutil.copytree(kept, home / "history")
    assert [materialized(home), materialized(home)] == [2, 3]


def test_a_process_that_was_killed_loses_nothing(home: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from tests.resources.test_dagster_storage import *\n"
        "dagster_storage.share_engines(); materialized(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    materialized(home)
    done = subprocess.run([sys.executable, "-c", program, str(home)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert materialized(home) == 3


def test_a_child_that_was_forked_writes_as_another_process_does(home: Path) -> None:
    materialized(home)
    child = multiprocessing.get_context("fork").Process(target=materialized, args=(home,))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert materialized(home) == 3


def test_no_more_files_are_kept_open_than_wanted(tmp_path: Path) -> None:
    idle = dagster_storage._IdleConnections(2)
    for number in (1, 2, 3, 2):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as made:
            made.execute("pragma journal_mode=wal")
            made.execute("create table if not exists t (a)")
        idle.keep(str(tmp_path / f"{number}.db"))
    assert logs(tmp_path).keys() == {"2.db-wal", "3.db-wal"}
    idle.close()
    assert not logs(tmp_path)
