"""Dagster's storage: its address where it is on a server, its tables, their revisions, and copies to try on."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from resources.backup import sqlite
from resources.backup.scratch import scratch_copy

_STORAGES = ("run", "event_log", "schedule")
"""Kinds of storage that an instance may have one each of, instead of one for all."""
_URL = "LLMOPS_SCRATCH_DAGSTER_URL"
_STORAGE = f"storage:\n  postgres:\n    postgres_url: {{env: {_URL}}}\ntelemetry: {{enabled: false}}\n"


def address(dagster_home: Path) -> str | None:
    """The SQLAlchemy URL of an instance's storage; None where it is in files of its home."""
    configuration = dagster_home / "dagster.yaml"
    if not configuration.exists() or "postgres" not in configuration.read_text(encoding="utf-8"):
        return None
    from dagster import DagsterInstance

    read = yaml.safe_load(configuration.read_text(encoding="utf-8"))
    # Whoever asks for an address makes no tables: a restore that asked would find the database filled by itself.
    for storage in (read.get("storage", {}).get("postgres"), *(read.get(f"{name}_storage") for name in _STORAGES)):
        if isinstance(storage, dict):
            storage.get("config", storage)["should_autocreate_tables"] = False
    with tempfile.TemporaryDirectory() as place:
        Path(place, "dagster.yaml").write_text(yaml.safe_dump(read), encoding="utf-8")
        with DagsterInstance.from_config(place) as instance:
            url: str | None = getattr(instance.run_storage, "postgres_url", None)
            return url


def make_tables(dagster_home: Path) -> None:
    """Have an instance make its tables, which it does when it is opened."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(dagster_home)) as instance:
        _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage


def revisions(dagster_home: Path) -> dict[str, tuple[str | None, str]]:
    """(revision, newest revision) of each storage of an instance: runs, events, schedules."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(dagster_home)) as instance:
        storages: dict[str, Any] = {
            "runs": instance.run_storage,
            "events": instance.event_log_storage,
            "schedules": instance.schedule_storage,
        }
        return {name: storage.alembic_version() for name, storage in storages.items()}


def upgrade(dagster_home: Path) -> None:
    """Bring the tables of an instance up to date, as `dagster instance migrate` does."""
    from dagster import DagsterInstance

    # It tells of each run on standard output, where a command's own answer goes.
    with contextlib.redirect_stdout(io.StringIO()), DagsterInstance.from_config(str(dagster_home)) as instance:
        instance.upgrade()


def runs_and_assets(dagster_home: Path) -> tuple[int, int]:
    """How many runs and assets an instance knows."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(dagster_home)) as instance:
        return instance.get_runs_count(), len(instance.all_asset_keys())


@contextmanager
def scratch_home(dagster_home: Path, folder: Path) -> Iterator[Path]:
    """The home of an instance on a copy of another's storage, until the end of the block."""
    place = folder / "dagster"
    place.mkdir()
    if (url := address(dagster_home)) is not None:
        with scratch_copy(url, folder) as there:
            (place / "dagster.yaml").write_text(_STORAGE, encoding="utf-8")
            os.environ[_URL] = there
            try:
                yield place
            finally:
                del os.environ[_URL]
        return
    for path in sorted(dagster_home.rglob("*.db")):
        copy = place / path.relative_to(dagster_home)
        copy.parent.mkdir(parents=True, exist_ok=True)
        sqlite.copy(path, copy)
    if (dagster_home / "dagster.yaml").exists():
        shutil.copyfile(dagster_home / "dagster.yaml", place / "dagster.yaml")
    yield place
