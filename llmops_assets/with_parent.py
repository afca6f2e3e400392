"""Ends a process with the one that started it: after a kill nobody would be left to stop it, or to tell that it ended.

`python -m llmops_assets.with_parent MODULE ARGUMENT…` runs a module as `python -m` does, while the caller lives.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time

MODULE = "llmops_assets.with_parent"
PARENT = "LLMOPS_STARTED_BY"
"""Variable with the id of the process that a component of the platform belongs to."""
LOOK_SECONDS = 0.5
GRACE_SECONDS = 5.0
"""How long an orphan may take to end in order."""


def main() -> None:
    parent = os.environ.pop(PARENT, None)
    if parent is not None:
        threading.Thread(target=_outlive, args=(int(parent),), daemon=True).start()
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    print("the process that started this one is gone: ending", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


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
