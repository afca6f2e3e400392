"""Tells people of runs that failed."""

import dagster as dg

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
    partition, error = run.tags.get("dagster/partition", run.job_name), first.strip()[:2000]
    if "splits" in assets:
        # A version that could not be ingested is not what the dataset's name means.
        reason = f"run {run.run_id} failed: {error.splitlines()[0] if error else 'without an error'}"
        catalog.intents.note_failure("ingest", partition, reason, "dagster")
    catalog.log(
        "dagster",
        "run.failed",
        partition,
        run_id=run.run_id,
        assets=assets,
        step=steps[0].step_key if steps else None,
        error=error,
    )
