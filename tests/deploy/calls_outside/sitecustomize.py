"""Notes whom a process looks up or calls beyond this machine: on PYTHONPATH, every Python process begins with it."""

import ipaddress
import os
import sys
from typing import Any

_FILE = os.environ.get("TEST_CALLS_OUTSIDE")


def _is_here(host: Any) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        # A name is looked up by asking somebody.
        return False
    return address.is_loopback or address.is_unspecified


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if not _is_here(host):
        with open(_FILE, "a", encoding="utf-8") as file:
            file.write(f"{event} {host!r} by {sys.argv}\n")


if _FILE:
    sys.addaudithook(_note)
