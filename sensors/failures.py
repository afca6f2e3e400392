"""Tells people of runs that failed."""

import dagster as dg

from llmops_assets.operations.failed_runs import FailedRun, note_failed_run
from resources.catalog import Catalog


@dg.run_failure_sensor(
    name="failed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="A failed run leaves a line in the audit log: its assets, its partition and the first error.",
)
def failed_runs(context: dg.RunFailureSensorContext, catalog: dg.ResourceParam[Catalog]) -> None:
    """Note in the audit log which run failed on which partition, and the first error."""
    run = context.dagster_run
    steps = [e for e in context.get_step_failure_events() if e.event_specific_data and e.event_specific_data.error]
    first = steps[0].event_specific_data.error.message if steps else context.failure_event.message or ""
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    failed = FailedRun(
        run_id=run.run_id,
        assets=assets,
        partition=run.tags.get("dagster/partition", run.job_name),
        step=steps[0].step_key if steps else None,
        error=first,
    )
    note_failed_run(catalog, "dagster", failed)
