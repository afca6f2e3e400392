"""Dagster's webserver twice over one workspace: one that changes things, and one that is read-only."""

import sys
import threading

import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster_webserver.app import create_app_from_workspace_process_context


@dg.op
def nothing() -> None:
    """Nothing."""


@dg.job
def desk_job() -> None:
    nothing()


def main(full: int, read_only: int) -> None:
    target = PythonFileTarget(python_file=__file__, attribute=None, working_directory=None, location_name="desk")
    with dg.DagsterInstance.get() as instance:
        for port, is_read_only in ((read_only, True), (full, False)):
            context = WorkspaceProcessContext(instance, target, version=dg.__version__, read_only=is_read_only)
            context.__enter__()
            app = create_app_from_workspace_process_context(context, "/dagster")
            server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
            threading.Thread(target=server.run, daemon=not is_read_only).start()
            threads = threading.enumerate()
        threads[-1].join()


defs = dg.Definitions(jobs=[desk_job])

if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
