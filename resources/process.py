"""Which process did something, so that another can tell whether it is still there."""

import os
import socket
from functools import cache
from hashlib import sha256
from pathlib import Path


@cache
def _machine() -> str:
    """12 hex digits for this host since it was started, and for what of its processes can be told apart from here.

    Two containers may have one host name and each a process 7: the namespace of process numbers is a part of it.
    """
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text())
        except OSError:
            # Elsewhere than on Linux the host's name has to do.
            parts.append("")
    return sha256("\n".join(parts).encode()).hexdigest()[:12]


def _started(pid: int) -> str | None:
    """When a process of this machine began, in ticks since the machine did; None when there is no such process."""
    try:
        # The name of the program, in parentheses, may hold spaces; the time is the twentieth field behind it.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]


def identity() -> str:
    """This process in one word: machine, number and start."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid()) or 'x'}"


def is_gone(word: str) -> bool | None:
    """Whether the process of that `identity` has ended; None where that cannot be told from here."""
    machine, pid, started = word.split("-")
    if machine != _machine() or started == "x":
        return None
    return _started(int(pid)) != started
