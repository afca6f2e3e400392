"""Runs are ended in whatever state a stop finds them, by a real code server that runs them."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import LaunchRunContext
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import GrpcServerTarget

from llmops_assets.local.stack import Component, free_port
from resources.cancellation import RunUnreachable, cancel

JOBS = """
import os
import time
from pathlib import Path
import dagster as dg

@dg.op
def work():
    Path({started!r} + ".part").write_text(str(os.getpid()))
    os.replace({started!r} + ".part", {started!r})
    time.sleep(600)

@dg.job(executor_def=dg.in_process_executor)
def at_work():
    work()
"""


@dataclass
class CodeServer:
    """A code server with one job, which writes its process id to `started` and then works for ten minutes."""

    instance: dg.DagsterInstance
    workspace: WorkspaceRequestContext
    started: Path
    looks: list[list[str]] = field(default_factory=list)

    def run(self, status: dg.DagsterRunStatus) -> dg.DagsterRun:
        (location,) = self.workspace.code_locations
        job = next(iter(location.get_repositories().values())).get_full_job("at_work")
        return create_run_for_test(
            self.instance,
            "at_work",
            status=status,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )

    def status(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        return self.instance.get_run_by_id(run.run_id).status

    def active(self) -> list[dg.DagsterRun]:
        runs = [run for run in self.instance.get_runs() if not run.is_finished]
        self.looks.append([run.status.value for run in runs])
        return runs


def until(condition, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CodeServer]:
    started, port = tmp_path / "started", free_port("127.0.0.1")
    (tmp_path / "jobs.py").write_text(JOBS.format(started=str(started)))
    queued = {"run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}}
    launched = {"run_launcher": {"module": "dagster", "class": "DefaultRunLauncher"}}
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-f", str(tmp_path / "jobs.py")]
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={**queued, **launched}) as instance:
        process = subprocess.Popen([*command, "-h", "127.0.0.1", "-p", str(port)])
        try:
            until(lambda: Component("code server", "", port).ready("127.0.0.1"), "the code server's start")
            target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="here")
            with WorkspaceProcessContext(instance, target) as context:
                yield CodeServer(instance, context.create_request_context(), started)
        finally:
            process.kill()
            process.wait()


def test_a_run_that_is_being_started_is_ended_once_it_is_there(server: CodeServer) -> None:
    run = server.run(dg.DagsterRunStatus.STARTING)
    waiting = server.run(dg.DagsterRunStatus.QUEUED)
    reached: list[str] = []
    stop = threading.Thread(target=lambda: reached.extend(cancel(server.instance, server.active)))
    stop.start()
    until(lambda: len(server.looks) >= 3, "three looks at the runs")
    # Told now, Dagster would lose the run: its process would find that it is not to start, and be taken for crashed.
    assert server.status(run) is dg.DagsterRunStatus.STARTING
    assert server.status(waiting) is dg.DagsterRunStatus.CANCELED
    server.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=server.workspace))
    stop.join(timeout=120)
    assert reached == [waiting.run_id, run.run_id]
    until(lambda: not server.active(), "the end of the run")
    assert server.status(run) is dg.DagsterRunStatus.CANCELED


def test_a_run_at_work_is_interrupted(server: CodeServer) -> None:
    run = server.run(dg.DagsterRunStatus.STARTING)
    server.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=server.workspace))
    until(server.started.exists, "the run's work")
    assert cancel(server.instance, server.active) == [run.run_id]
    until(lambda: not server.active(), "the end of the run")
    assert server.status(run) is dg.DagsterRunStatus.CANCELED


def times_asked(server: CodeServer, run: dg.DagsterRun) -> int:
    return len(server.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_CANCELING))


def test_a_run_that_was_asked_already_is_not_asked_again_and_comes_to_its_own_end(server: CodeServer) -> None:
    run = server.run(dg.DagsterRunStatus.STARTED)
    server.instance.report_run_canceling(run)
    assert cancel(server.instance, server.active) == []
    assert server.status(run) is dg.DagsterRunStatus.CANCELING and times_asked(server, run) == 1


def test_a_run_that_its_code_server_no_longer_has_is_ended_on_record(server: CodeServer) -> None:
    run = server.run(dg.DagsterRunStatus.STARTING)
    server.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=server.workspace))
    until(server.started.exists, "the run's work")
    psutil.Process(int(server.started.read_text())).kill()
    until(lambda: server.status(run) is dg.DagsterRunStatus.FAILURE, "the end of the killed run")
    # As when it ends between two lines of the one who asks: its end is written over by the question.
    server.instance.report_run_canceling(server.instance.get_run_by_id(run.run_id))
    server.instance.report_dagster_event(
        dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="at_work"), run.run_id
    )
    assert server.status(run) is dg.DagsterRunStatus.STARTED
    assert cancel(server.instance, server.active) == []
    assert server.status(run) is dg.DagsterRunStatus.CANCELED


def test_a_run_that_nobody_starts_is_named_with_its_state(server: CodeServer) -> None:
    run = server.run(dg.DagsterRunStatus.STARTING)
    with pytest.raises(RunUnreachable, match=rf"run {run.run_id} cannot be reached \(starting for 1 s\)"):
        cancel(server.instance, server.active, reach_seconds=0.6)
    assert server.status(run) is dg.DagsterRunStatus.STARTING
