"""Dagster's files are as its own storage leaves them, with fewer engines made."""

import shutil
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
