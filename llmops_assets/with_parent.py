"""Ends a process with the one that started it: after a kill nobody would be left to stop it, or to tell that it ended.

`python -m llmops_assets.with_parent [--alone] MODULE ARGUMENT…` runs a module as `python -m` does. When the caller is
gone, it ends with all that it started, or alone.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time

MODULE = "llmops_assets.with_parent"
PARENT = "LLMOPS_STARTED_BY"
"""Variable with the id of the process that a component of the platform belongs to."""
ALONE = "--alone"
"""Before the module: what it started ends by itself, in its own time."""
LOOK_SECONDS = 0.5
GRACE_SECONDS = 5
"""How long an orphan may take to end in order."""


def heed_signals() -> None:
    """Give SIGINT and SIGTERM their default handlers where whoever started this process had them ignored.

    A shell without job control ignores SIGINT for what it runs with `&`. Dagster then gives SIGTERM the handler of
    SIGINT, so its processes, and all that they start, would be deaf to both and could only be killed.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def main() -> None:
    """Run the module that the command line names, and end it when the caller is gone."""
    heed_signals()
    parent, alone = os.environ.pop(PARENT, None), ALONE in sys.argv[1:2]
    if parent is not None:
        threading.Thread(target=_outlive, args=(int(parent), alone), daemon=True).start()
    module, *arguments = sys.argv[2:] if alone else sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _outlive(parent: int, alone: bool) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    print("the process that started this one is gone: ending", file=sys.stderr)
    # A thread does not outlive its interpreter, which may wait for ever at its end: MLflow's does, for a child.
    target = f"{os.getpid()}" if alone else f"-{os.getpgrp()}"
    command = f"sleep {GRACE_SECONDS}; kill -9 {target}"
    subprocess.Popen(["sh", "-c", command], start_new_session=True, stderr=subprocess.DEVNULL)
    os.kill(os.getpid(), signal.SIGTERM)


def end_a_run_with_its_code_server() -> None:
    """In the process of a run: end as by a kill once the code server that started it is gone. Elsewhere, do nothing.

    The next start of the platform takes the run up again; its worker notices by itself, and saves a checkpoint first.
    """
    server = multiprocessing.parent_process()
    if server is None:
        return

    def wait() -> None:
        server.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
