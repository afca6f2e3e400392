"""Tells people of runs that failed."""

import dagster as dg

from resources.catalog import Catalog


@dg.run_failure_sensor(
    name="failed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A failed run leaves a line in the audit log: its assets, its partition and the first error.",
)
def failed_runs(context: dg.RunFailureSensorContext, catalog: dg.ResourceParam[Catalog]) -> None:
    """Note in the audit log which run failed on which partition, and the first error."""
    run = context.dagster_run
    steps = [e for e in context.get_step_failure_events() if e.event_specific_data and e.event_specific_data.error]
    first = steps[0].event_specific_data.error.message if steps else context.failure_event.message or ""
    catalog.log(
        "dagster",
        "run.failed",
        run.tags.get("dagster/partition", run.job_name),
        run_id=run.run_id,
        assets=sorted(key.to_user_string() for key in run.asset_selection or ()),
        step=steps[0].step_key if steps else None,
        error=first.strip()[:2000],
    )
