"""Puts right, before a platform starts, what an earlier one left unfinished: `python -m llmops_assets.local.settle`."""

import os

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring


def settle(settings: Settings, *, ours: bool = True) -> list[str]:
    """Put right what an earlier stack left unfinished; the ids of the runs that were cut off.

    The code server was the parent of every run, so with no stack running, a run that is recorded as going on is not.
    It is marked as failed, which lets the daemon take it up again from its first unfinished step. Where runs are not
    `ours`, but in containers of their own, none is touched: the launcher's monitor finds out what became of them.
    """
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    cut_off = []
    with dg.DagsterInstance.get() as instance:
        queued = dg.DagsterRunStatus.QUEUED
        statuses = [status for status in IN_PROGRESS_RUN_STATUSES if status != queued]
        for run in instance.get_runs(dg.RunsFilter(statuses=statuses)) if ours else ():
            instance.report_run_failed(run, "The platform was stopped while this run was going on.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            cut_off.append(run.run_id)
        instance.event_log_storage.set_concurrency_slots("gpu", max(1, len(Wiring(settings).devices())))
    return cut_off


if __name__ == "__main__":
    settle(Settings())
