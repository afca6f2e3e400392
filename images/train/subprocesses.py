"""Starts a process that trains for the worker, on the worker's GPUs, and says what it does on its stdout."""

import subprocess
from collections.abc import Mapping, Sequence

from resources.gpus import lock_handles


def start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """The process of `command`, stdout and stderr in one stream of text; it sees nothing of the worker's Pipes session.

    A Ctrl-C reaches it once, from the worker; and while it lives, even without the worker, it holds the GPUs.
    """
    return subprocess.Popen(
        command,
        env={name: value for name, value in environment.items() if not name.startswith("DAGSTER_PIPES_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=lock_handles(),
    )
