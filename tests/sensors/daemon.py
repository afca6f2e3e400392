"""What Dagster's daemon does with a tick, in its order, so that a test can end it at any line."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.context import partition_loading_context


class Daemon:
    """A repository on an instance: evaluates one sensor, commits what it asks for, and executes the runs.

    As in Dagster's, events are reported first, then partitions are added, then runs are created, a run key once, and
    with them the cursor; each step is on record when the next begins.
    """

    def __init__(self, instance: dg.DagsterInstance, defs: dg.Definitions, sensor: str, **resources: Any) -> None:
        self.instance, self.repository = instance, defs.get_repository_def()
        self.sensor, self.resources = sensor, resources
        self.cursor: str | None = None
        self.started: dict[str, dg.RunRequest] = {}
        self.executed: set[str] = set()

    def evaluate(self) -> Any:
        """What the sensor says, as the code server has it."""
        sensor = self.repository.get_sensor_def(self.sensor)
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=self.repository,
            resources={name: self.resources[name] for name in sensor.required_resource_keys},
        )
        return sensor(context)

    def commit(self, tick: Any) -> list[dg.RunRequest]:
        """Put on record what a tick asks for; the runs that it started."""
        if isinstance(tick, dg.SkipReason):
            return []
        for event in tick.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in tick.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        new = [r for r in tick.run_requests or () if self.started.setdefault(r.run_key, r) is r]
        self.cursor = tick.cursor
        return new

    def reason(self) -> str:
        """Why a tick would start nothing."""
        tick = self.evaluate()
        reason = tick if isinstance(tick, dg.SkipReason) else tick.skip_reason
        return str(reason.skip_message)

    def tick(self) -> list[dg.RunRequest]:
        """Evaluate the sensor and create the runs that it asks for."""
        return self.commit(self.evaluate())

    def execute(self, run: Callable[..., Any] | None = None) -> None:
        """Execute every run that was created and not executed yet, by `run` in place of Dagster where it is given."""
        for key, request in list(self.started.items()):
            if key not in self.executed:
                self.executed.add(key)
                (run or self.materialize)(request.partition_key, *request.asset_selection, tags=request.tags)

    def materialize(
        self, partition: str, *assets: dg.AssetKey, tags: Mapping[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        job = self.repository.get_implicit_job_def_for_assets(assets)
        with partition_loading_context(dynamic_partitions_store=self.instance):
            return job.execute_in_process(
                instance=self.instance,
                partition_key=partition,
                asset_selection=list(assets),
                tags=dict(tags or {}),
                raise_on_error=False,
            )

    def bury(self) -> None:
        """What run monitoring does about runs whose process is gone."""
        for run in self.instance.get_runs():
            if not run.is_finished:
                self.instance.report_run_failed(run, "its process is gone")
