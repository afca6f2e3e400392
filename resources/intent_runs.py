"""Reads from a Dagster instance what became of the runs that were started for an intent."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from resources.attempts import Attempt
from resources.run_log import root_message

if TYPE_CHECKING:
    import dagster as dg

INTENT_TAG = "llmops/intent"
"""Tag of a run: the name of the intent that it was started for."""
ATTEMPT_TAG = "llmops/attempt"
PARTITION_TAG = "dagster/partition"
_WILL_RETRY = "dagster/will_retry"
_LONGEST_ERROR = 500


def tags_of(intent: str, attempt: int) -> dict[str, str]:
    """The tags of a run that is started for an intent."""
    return {INTENT_TAG: intent, ATTEMPT_TAG: str(attempt)}


def attempts(instance: "dg.DagsterInstance", intents: Iterable[str]) -> dict[str, list[Attempt]]:
    """The runs that carry the names of intents, by name; of a run that was taken up again, only the last."""
    import dagster as dg

    newest: dict[tuple[str, int], dg.RunRecord] = {}
    names = list(intents)
    if not names:
        return {}
    for record in instance.get_run_records(dg.RunsFilter(tags={INTENT_TAG: names}), ascending=True):
        tags = record.dagster_run.tags
        newest[tags[INTENT_TAG], int(tags.get(ATTEMPT_TAG, "1"))] = record
    found: dict[str, list[Attempt]] = {name: [] for name in names}
    for (name, number), record in newest.items():
        found[name].append(attempt(instance, record, number))
    return found


def newest_run(
    instance: "dg.DagsterInstance", partition: str, asset: str, since: datetime | None = None
) -> "dg.RunRecord | None":
    """The newest run on a partition, created after `since`, that is to materialise `asset`."""
    import dagster as dg

    wanted = dg.RunsFilter(tags={PARTITION_TAG: partition}, created_after=since)
    return next(
        (
            record
            for record in instance.get_run_records(wanted)
            if dg.AssetKey(asset) in (record.dagster_run.asset_selection or ())
        ),
        None,
    )


def attempt(instance: "dg.DagsterInstance", record: "dg.RunRecord", number: int) -> Attempt:
    """How one run stands, with what it failed of."""
    import dagster as dg

    run = record.dagster_run
    ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None
    if not run.is_finished:
        waiting = run.status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
        return Attempt(number, "waiting" if waiting else "running", run.run_id)
    if run.status is dg.DagsterRunStatus.CANCELED:
        return Attempt(number, "cancelled", run.run_id, ended)
    if run.is_success:
        return Attempt(number, "succeeded", run.run_id, ended)
    if run.tags.get(_WILL_RETRY) == "true":
        error = f"run {run.run_id} died, and Dagster takes it up again"
        return Attempt(number, "waiting", run.run_id, error=error)
    verdict, error = _failure(instance, run.run_id)
    return Attempt(number, "failed", run.run_id, ended, verdict, error)


def is_underway(record: "dg.RunRecord") -> bool:
    """Whether a run goes on, waits to, or died and will be taken up again."""
    run = record.dagster_run
    return not run.is_finished or (run.is_failure and run.tags.get(_WILL_RETRY) == "true")


def _failure(instance: "dg.DagsterInstance", run_id: str) -> tuple[str | None, str]:
    """The verdict that a failed run reached, or None, and the first error in its log."""
    import dagster as dg

    kinds = {
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.RUN_FAILURE,
    }
    error, verdict = "", None
    for record in instance.get_records_for_run(run_id, of_type=kinds).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            stops = check.blocking and not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
            if stops and verdict is None:
                verdict = f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description or ''}"
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            if data.error is None or data.error.cls_name == "DagsterAssetCheckFailedError":
                continue
            # A refusal of ours is a `dg.Failure`, which comes out the same each time; other errors may pass.
            if data.user_failure_data is not None and verdict is None:
                verdict = data.user_failure_data.description or root_message(data.error)
            error = error or root_message(data.error)
        else:
            error = error or event.message or ""
    return (verdict[:_LONGEST_ERROR] if verdict else None), error.strip()[:_LONGEST_ERROR]
