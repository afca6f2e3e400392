"""Follows what the platform does with one partition, and tells how it ended."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmops_assets.operations.graph import stage_of
from llmops_assets.specs.settings import Settings
from resources.run_log import Check, Run, RunLog, root_message

if TYPE_CHECKING:
    import dagster as dg

LOOK_SECONDS = 0.7
WAITING_SECONDS = 15.0
"""How often a person is told what is waited for while nothing happens."""
_NOT_EXECUTED = re.compile(r"Dependencies for step .* (were not executed|failed)")


@dataclass
class Outcome:
    """How the work on a partition ended: `done`, `withheld` by a gate, or `failed` with the reason."""

    partition: str
    state: str
    asset: str | None = None
    checks: list[Check] = field(default_factory=list)
    error: str | None = None
    run_id: str | None = None


@dataclass
class _Followed:
    """What was read of the runs that are followed: how far in each log, check results, and the first error."""

    cursors: dict[str, str] = field(default_factory=dict)
    checks: dict[tuple[str, str], Check] = field(default_factory=dict)
    error: str = ""

    @property
    def blocked_by(self) -> Check | None:
        """A blocking check that failed and was not asked again since."""
        return next((check for check in self.checks.values() if check.blocking and not check.passed), None)


class Watcher:
    """Reads the event log of the instance; `say` gets a line for everything a person would want to see."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.log = RunLog(settings.dagster_home)
        self.say = say

    @property
    def instance(self) -> "dg.DagsterInstance":
        return self.log.instance

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
        return self.log.busy(partition, stage_of(asset))

    def runs(self, partition: str, asset: str) -> list[Run]:
        """Runs on a partition that touch the stage of an asset, oldest first."""
        return self.log.runs([partition], stage_of(asset))[partition]

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
        explain: Callable[[], str] | None = None,
        tried_again: Callable[[Run], str | None] = lambda run: None,
    ) -> Outcome:
        """Wait until asset `target` of `partition` was materialised after `since`, a gate withheld it, or a run failed.

        It has failed, too, when it was materialised and a blocking check of it, or of its run, failed. `gate` is the
        asset and main check that may withhold the target while its run stays green; others of that asset may, too.
        `alive` is called at every look, and may raise.
        `explain` says what is waited for while nothing runs; left out, how far the runs are. A run that died with its
        process is taken up again by the daemon, hence `grace` (seconds); `tried_again` says of a run that failed or was
        cancelled why another will be asked for, which is then waited for, and None where none will.
        """
        deadline = time.monotonic() + timeout
        old = {
            run.id
            for run in self.runs(partition, target)
            # One that was queued before, and ran since, is what is waited for.
            if run.is_finished and (run.ended_at or 0.0) < since.timestamp()
        }
        read = _Followed()
        explained_at, explanation = time.monotonic(), ""
        failed_since: float | None = None
        given_up: set[str] = set()
        while time.monotonic() < deadline:
            alive()
            runs = [run for run in self.runs(partition, target) if run.id not in old]
            for run in runs:
                self._follow(run.id, read)
            last = self._last(target, partition)
            busy = any(not run.is_finished for run in runs)
            checks, blocked = list(read.checks.values()), read.blocked_by
            if last is not None and last.timestamp >= since.timestamp() and not busy:
                # One that another run evaluates counts as well: what stands on record is what holds up the next asset.
                blocked = blocked or self.log.failed_check(partition, [target])
                if blocked is not None:
                    return _failed_check(partition, blocked, checks, last.run_id)
                return Outcome(partition, "done", target, checks, run_id=last.run_id)
            if runs and not busy:
                newest = runs[-1]
                objection = withheld_by(checks, gate) if gate else None
                if objection is not None and newest.is_success:
                    return Outcome(partition, "withheld", objection.asset, checks, objection.description)
                why = tried_again(newest) if (newest.is_failure or newest.is_canceled) and not blocked else None
                if why is not None:
                    if newest.id not in given_up:
                        given_up.add(newest.id)
                        self.say(f"  {why}")
                    read.error, failed_since = "", None
                elif newest.is_failure or newest.is_canceled:
                    failed_since = failed_since or time.monotonic()
                    if not newest.will_retry and (read.error or time.monotonic() - failed_since > grace):
                        if blocked is not None:
                            return _failed_check(partition, blocked, checks, newest.id)
                        # Its steps raise Dagster's own interruption, which says less.
                        reason = "the run was stopped" if newest.is_canceled else read.error or "the run was stopped"
                        return Outcome(partition, "failed", None, checks, reason, newest.id)
            else:
                failed_since = None
            if not any(run.status == "STARTED" for run in runs):
                known, explanation = explanation, explain() if explain else _what_waits(runs)
                # What is asked for is usually taken up within seconds: that nothing is known of it is no news yet.
                is_news = explanation != known and (explain is not None or known != "")
                if explanation and (is_news or time.monotonic() - explained_at > WAITING_SECONDS):
                    explained_at = time.monotonic()
                    self.say(f"  {explanation}")
            time.sleep(LOOK_SECONDS)
        return Outcome(partition, "failed", target, list(read.checks.values()), f"not done within {timeout:,.0f} s")

    def _follow(self, run_id: str, read: _Followed) -> None:
        """Say what is new in a run's log, and keep its check results and the error of the first step that failed."""
        import dagster as dg

        page = self.instance.get_records_for_run(run_id, cursor=read.cursors.get(run_id))
        read.cursors[run_id] = page.cursor
        for record in page.records:
            entry = record.event_log_entry
            event = entry.dagster_event
            if event is None:
                if _worth_saying(int(entry.level), entry.user_message):
                    self.say(f"  {entry.step_key or ''}: {entry.user_message.splitlines()[0]}")
            elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
                self.say(f"  asset {event.asset_key.to_user_string()} [{event.partition}]")
            elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                check = _check(event, run_id)
                read.checks[(check.asset, check.name)] = check
                if not check.passed:
                    self.say(f"  check {check.asset}.{check.name} FAILED: {check.description}")
            elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
                read.error = read.error or root_message(event.step_failure_data.error)

    def check(self, asset: str, name: str, partition: str) -> Check | None:
        """The last evaluation of one check on a partition."""
        return next((c for c in self.checks(partition, asset) if (c.asset, c.name) == (asset, name)), None)

    def checks(self, partition: str, asset: str) -> list[Check]:
        """The last evaluation of every check in the stage of an asset, on a partition."""
        return self.log.checks(partition, stage_of(asset))


def withheld_by(checks: Sequence[Check], gate: tuple[str, str]) -> Check | None:
    """The check that withholds what stands behind a gate: the gate's main one, or else another one of its asset."""
    objections = [check for check in checks if check.asset == gate[0] and check.objects]
    return next((check for check in objections if check.name == gate[1]), next(iter(objections), None))


def _what_waits(runs: list[Run]) -> str:
    """What is known of what is waited for while no run is at work."""
    if not runs:
        return "waits: no run was started for it yet"
    return f"waits: run {runs[-1].id[:8]} is {runs[-1].status.lower().replace('_', ' ')}"


def _worth_saying(level: int, message: str) -> bool:
    """Whether a line of a run's log is for a person: what the steps behind one that failed did not do is not."""
    if level < logging.INFO or not message or message.startswith("[pipes]"):
        return False
    return not _NOT_EXECUTED.match(message)


def _failed_check(partition: str, check: Check, checks: list[Check], run_id: str) -> Outcome:
    return Outcome(partition, "failed", check.asset, checks, f"{check.name}: {check.description}", run_id)


def _check(event: "dg.DagsterEvent", run_id: str) -> Check:
    evaluation = event.asset_check_evaluation_data
    warning = evaluation.severity.value == "WARN"
    return Check(
        evaluation.asset_key.to_user_string(),
        evaluation.check_name,
        evaluation.passed,
        # A warning blocks nothing, whatever its check may do.
        bool(evaluation.blocking) and not warning,
        evaluation.description or "",
        run_id,
        warning,
    )
