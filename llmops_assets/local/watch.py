"""Follows what the platform does with one partition, and tells how it ended."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmops_assets.specs.settings import Settings

if TYPE_CHECKING:
    import dagster as dg


LOOK_SECONDS = 0.7

STAGES = (
    {"question_answers", "dataset", "quality_report", "clean_dataset", "splits"},
    {"training_plan", "adapter", "merged_model", "evaluation", "registered_model"},
    {"deployment"},
    {"ab_report"},
    {"drift_report"},
)
"""Assets whose runs on a partition belong together; an endpoint's name may be an experiment's too."""


@dataclass(frozen=True)
class Check:
    """The last evaluation of one asset check on one partition."""

    asset: str
    name: str
    passed: bool
    blocking: bool
    description: str


@dataclass
class Outcome:
    """How the work on a partition ended: `done`, `withheld` by a gate, or `failed` with the reason."""

    partition: str
    state: str
    asset: str | None = None
    checks: list[Check] = field(default_factory=list)
    error: str | None = None
    run_id: str | None = None


class Watcher:
    """Reads the event log of the instance; `say` gets a line for everything a person would want to see."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
        import dagster as dg

        self.instance: dg.DagsterInstance = dg.DagsterInstance.get()
        self.say = say

    def materialized_at(self, asset: str, partition: str) -> datetime | None:
        """When an asset's partition was last materialised."""
        record = self._last(asset, partition)
        return datetime.fromtimestamp(record.timestamp, UTC) if record else None

    def _last(self, asset: str, partition: str) -> "dg.EventLogRecord | None":
        import dagster as dg

        found = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition]), limit=1
        )
        return found.records[0] if found.records else None

    def finished(self, partition: str, asset: str) -> bool:
        """Whether an asset's partition is materialised and nothing works on the partition."""
        return self._last(asset, partition) is not None and not self.busy(partition, asset)

    def busy(self, partition: str, asset: str) -> bool:
        """Whether a run of the asset's stage works on a partition, waits to, or will be taken up by the daemon."""
        runs = [record.dagster_run for record in self.runs(partition, asset)]
        retried = {run.parent_run_id for run in runs}
        return any(not run.is_finished or (_will_retry(run) and run.run_id not in retried) for run in runs)

    def runs(self, partition: str, asset: str) -> "list[dg.RunRecord]":
        """Runs on a partition that touch the stage of an asset, oldest first."""
        import dagster as dg

        stage = next(names for names in STAGES if asset in names)
        found = self.instance.get_run_records(dg.RunsFilter(tags={"dagster/partition": partition}), ascending=True)
        return [
            record
            for record in found
            if stage & {key.to_user_string() for key in record.dagster_run.asset_selection or ()}
        ]

    def wait(
        self,
        partition: str,
        target: str,
        *,
        since: datetime,
        gate: tuple[str, str] | None = None,
        timeout: float = 24 * 3600,
        alive: Callable[[], None] = lambda: None,
        grace: float = 20,
    ) -> Outcome:
        """Wait until asset `target` of `partition` was materialised after `since`, a gate withheld it, or a run failed.

        `gate` is the (asset, check) that may withhold the target while its run stays green. `alive` is called at every
        look and may raise. A run that died with its process is taken up again by the daemon, hence `grace` (seconds).
        """
        deadline = time.monotonic() + timeout
        old = {
            record.dagster_run.run_id
            for record in self.runs(partition, target)
            # One that was queued before, and ran since, is what is waited for.
            if record.dagster_run.is_finished and (record.end_time or 0.0) < since.timestamp()
        }
        cursors: dict[str, str] = {}
        checks: dict[tuple[str, str], Check] = {}
        failed_since: float | None = None
        error = ""
        while time.monotonic() < deadline:
            alive()
            records = [r for r in self.runs(partition, target) if r.dagster_run.run_id not in old]
            for record in records:
                error = self._tell(record.dagster_run.run_id, cursors, checks) or error
            last = self._last(target, partition)
            busy = any(not r.dagster_run.is_finished for r in records)
            if last is not None and last.timestamp >= since.timestamp() and not busy:
                return Outcome(partition, "done", target, list(checks.values()), run_id=last.run_id)
            if records and not busy:
                newest = records[-1].dagster_run
                verdict = checks.get(gate) if gate else None
                if verdict is not None and not verdict.passed and newest.is_success:
                    return Outcome(partition, "withheld", gate[0], list(checks.values()), verdict.description)
                if newest.is_failure_or_canceled:
                    failed_since = failed_since or time.monotonic()
                    if not _will_retry(newest) and (error or time.monotonic() - failed_since > grace):
                        blocked = next((c for c in checks.values() if not c.passed and c.blocking), None)
                        return Outcome(
                            partition,
                            "failed",
                            blocked.asset if blocked else None,
                            list(checks.values()),
                            f"{blocked.name}: {blocked.description}" if blocked else error or "the run was stopped",
                            newest.run_id,
                        )
            else:
                failed_since = None
            time.sleep(LOOK_SECONDS)
        return Outcome(partition, "failed", target, list(checks.values()), f"not done within {timeout:,.0f} s")

    def _tell(self, run_id: str, cursors: dict[str, str], checks: dict[tuple[str, str], Check]) -> str:
        """Say what is new in a run's log; the error of a step that failed, if any."""
        import dagster as dg

        page = self.instance.get_records_for_run(run_id, cursor=cursors.get(run_id))
        cursors[run_id] = page.cursor
        error = ""
        for record in page.records:
            entry = record.event_log_entry
            event = entry.dagster_event
            if event is None:
                if entry.level >= logging.INFO and entry.user_message and not entry.user_message.startswith("[pipes]"):
                    self.say(f"  {entry.step_key or ''}: {entry.user_message.splitlines()[0]}")
            elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
                self.say(f"  asset {event.asset_key.to_user_string()} [{event.partition}]")
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                check = _check(event)
                checks[(check.asset, check.name)] = check
                if not check.passed:
                    self.say(f"  check {check.asset}.{check.name} FAILED: {check.description}")
            elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
                error = error or root_message(event.step_failure_data.error)
        return error

    def check(self, asset: str, name: str, partition: str) -> Check | None:
        """The last evaluation of one check on a partition."""
        return next((c for c in self.checks(partition, asset) if (c.asset, c.name) == (asset, name)), None)

    def checks(self, partition: str, asset: str) -> list[Check]:
        """The last evaluation of every check in the stage of an asset, on a partition."""
        import dagster as dg

        checks: dict[tuple[str, str], Check] = {}
        for run in self.runs(partition, asset):
            page = self.instance.get_records_for_run(
                run.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
            )
            for record in page.records:
                check = _check(record.event_log_entry.dagster_event)
                checks[(check.asset, check.name)] = check
        return list(checks.values())


def _will_retry(run: "dg.DagsterRun") -> bool:
    return run.is_failure and run.tags.get("dagster/will_retry") == "true"


def _check(event: "dg.DagsterEvent") -> Check:
    evaluation = event.asset_check_evaluation_data
    return Check(
        evaluation.asset_key.to_user_string(),
        evaluation.check_name,
        evaluation.passed,
        bool(evaluation.blocking),
        evaluation.description or "",
    )


def root_message(error: object) -> str:
    """The message of the first cause of a serialised error."""
    while getattr(error, "cause", None) is not None:
        error = error.cause
    return str(getattr(error, "message", error)).strip()
