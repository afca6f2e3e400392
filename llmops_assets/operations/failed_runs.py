"""Noting that a run failed: on record for people, and for a dataset version that is not what its name means then."""

from collections.abc import Sequence
from dataclasses import dataclass

from resources.catalog import Catalog

_MOST_CHARACTERS = 2000


@dataclass(frozen=True)
class FailedRun:
    """A run that failed: its assets, its partition (or its job), and the first step that failed with its error."""

    run_id: str
    assets: Sequence[str]
    partition: str
    step: str | None
    error: str


def note_failed_run(catalog: Catalog, actor: str, run: FailedRun) -> None:
    """Leave a line in the audit log; the name of a dataset no longer means a version whose ingestion failed."""
    error = run.error.strip()[:_MOST_CHARACTERS]
    if "splits" in run.assets:
        reason = f"run {run.run_id} failed: {error.splitlines()[0] if error else 'without an error'}"
        catalog.intents.note_failure("ingest", run.partition, reason, actor)
    assets = list(run.assets)
    catalog.log(actor, "run.failed", run.partition, run_id=run.run_id, assets=assets, step=run.step, error=error)
