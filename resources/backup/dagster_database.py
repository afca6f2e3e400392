"""Dagster's storage where it is a database on a server: its address, and its tables."""

from pathlib import Path


def address(dagster_home: Path) -> str | None:
    """The SQLAlchemy URL of an instance's storage; None where it is in files of its home."""
    configuration = dagster_home / "dagster.yaml"
    if not configuration.exists() or "postgres" not in configuration.read_text(encoding="utf-8"):
        return None
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(dagster_home)) as instance:
        url: str | None = getattr(instance.run_storage, "postgres_url", None)
        return url


def make_tables(dagster_home: Path) -> None:
    """Have an instance make its tables, which it does when it is opened."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(dagster_home)) as instance:
        _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
