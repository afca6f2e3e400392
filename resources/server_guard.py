"""Holds a model server to what it is to serve: the files of its model before it starts, and the port as its own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from resources.catalog import Backend
from resources.content import verify

CONTENT_HASH = "content_hash"
"""Key of a backend's runtime: the hash that its model was registered with. Those of earlier releases have none."""


def with_content(runtime: dict[str, Any], content_hash: str) -> dict[str, Any]:
    """What a backend is started with, for a model of this content hash."""
    return {**runtime, CONTENT_HASH: content_hash}


def verify_model(backend: Backend) -> None:
    """Raise ContentChanged where the folder of a backend does not hold the model that was registered."""
    expected = backend.runtime.get(CONTENT_HASH)
    if expected is None:
        return
    advice = "It is not served. Restore the folder from a backup, or deploy another version"
    verify(Path(backend.model_path), expected, f"registered as {backend.model_ref}", advice)


def is_same_server(known: Backend, wanted: Backend) -> bool:
    """Whether a server on record serves what is wanted; one that an earlier release started says less of it."""
    ours = known.runtime.get(CONTENT_HASH), known.model_ref, Path(known.model_path).absolute()
    theirs = wanted.runtime.get(CONTENT_HASH), wanted.model_ref, Path(wanted.model_path).absolute()
    return ours[1:] == theirs[1:] and (ours[0] is None or ours[0] == theirs[0])


def listens(processes: Iterable[psutil.Process], port: int) -> bool | None:
    """Whether one of `processes`, or of their children, listens on `port`; None where the system does not tell.

    A process that somebody left behind on the port would answer in the server's place, of whatever model it has.
    """
    reported = False
    for process in processes:
        try:
            for one in (process, *process.children(recursive=True)):
                if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in one.net_connections("tcp")):
                    return True
                reported = True
        except (psutil.Error, OSError):
            continue
    return False if reported else None
