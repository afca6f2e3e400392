"""Processes of this machine that carry a mark of ours in their environment: found, asked to end, killed."""

import random
import signal
import socket
import subprocess
import time

import psutil

from resources.backends.protocol import ServerError

MARK = "LLMOPS_BACKEND"
"""Variable of a server and of all that it starts: whose it is."""
START = "LLMOPS_BACKEND_START"
"""Variable of the same: what it was started as."""
# Below the ports that Linux gives to outgoing connections, which could take a port between choosing and binding it.
_PORTS = range(20000, 32000)
# The clock that start times are computed from may be set meanwhile.
_SAME_START_SECONDS = 2.0


class Children:
    """The processes that this one has started: an ended child keeps its id until its parent takes note."""

    def __init__(self) -> None:
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def add(self, child: "subprocess.Popen[bytes]") -> None:
        self._started[child.pid] = child

    def reap(self) -> None:
        for pid, child in list(self._started.items()):
            if child.poll() is not None:
                self._started.pop(pid, None)


def free_port(host: str) -> int:
    """A port of `host` that nobody listens on."""
    for port in random.sample(_PORTS, 200):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def runs(process: psutil.Process) -> bool:
    """Whether the very process that `process` stands for still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process; one that is gone is none to send it to. ServerError where it is another user's."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise ServerError(f"process {process.pid} of a model server belongs to another user") from error


def wait_gone(family: list[psutil.Process], seconds: float, children: Children) -> list[psutil.Process]:
    """Wait up to `seconds` until processes are gone; those that are not."""
    until = time.monotonic() + seconds
    while True:
        children.reap()
        family = [process for process in family if runs(process)]
        if not family or time.monotonic() > until:
            return family
        time.sleep(0.01)


def the_process(pid: int | None, started: float | None) -> psutil.Process | None:
    """The process of that id that started then (seconds since 1970); None where it is gone, or another has its id."""
    if pid is None or started is None:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) <= _SAME_START_SECONDS
        return process if same and runs(process) else None
    except psutil.NoSuchProcess:
        return None


def marked(mark: str) -> list[psutil.Process]:
    """The running processes that carry a mark, oldest first."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and runs(process):
                found.append(process)
        except (psutil.Error, OSError):
            # Gone since, or of another user: not ours.
            continue
    return sorted(found, key=lambda process: (process.create_time(), process.pid))
