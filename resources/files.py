"""Writes files whole, holds them against other processes, and leaves no plain text that is no longer used."""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PLAIN = ".plain-"
"""How folders with plain text begin: none is left by a process that ended, and no scan of a store looks into them."""
_LOCK_PAUSE = 0.05
_UNNAMED_REFUSED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


@contextmanager
def replacing(target: Path | str, *, mode: int = 0o644, durable: bool = True) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of `target` once the body has ended, in one step; not when it raises.

    The file has no name until it is whole, so a process that is killed meanwhile leaves nothing of it. Missing parent
    folders are made. `durable` has the content reach the disk before the name does.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{target.name[:40]}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    handle, named = _unnamed(target.parent), False
    if handle is None:
        # A file system that knows no files without a name (or no Linux).
        handle, named = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), True
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
            os.fchmod(stream.fileno(), mode)
            if not named:
                _name(stream.fileno(), half)
        os.replace(half, target)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def write_bytes(target: Path | str, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `data` so that a reader sees the old content or the new, never a part."""
    with replacing(target, mode=mode, durable=durable) as stream:
        stream.write(data)


def write_text(target: Path | str, text: str, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `text` as UTF-8, as `write_bytes` does."""
    write_bytes(target, text.encode("utf-8"), mode=mode, durable=durable)


def _unnamed(folder: Path) -> int | None:
    """A file in a folder that has no name yet; None where there are no such files."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno in _UNNAMED_REFUSED and folder.is_dir():
            return None
        raise


def _name(handle: int, path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # With a folder's handle, link(2) becomes linkat(2), which can be told to follow the link to the open file.
        os.link(f"/proc/self/fd/{handle}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


class Locked(OSError):
    """Another process holds the file."""


@contextmanager
def locked(
    path: Path | str, *, timeout: float | None = None, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold `path` against every other process of this machine that holds it so; the lock goes with the process.

    `timeout` is how long another one is waited for, in seconds (None: for as long as it takes); then `Locked` is
    raised. `waiting` is called once when there is a wait. What holds across machines is in the catalog.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout is None else time.monotonic() + timeout
    with open(path, "a") as lock:
        announced = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise Locked(errno.EAGAIN, "another process holds it", str(path)) from None
                if not announced:
                    announced = True
                    waiting()
                if deadline is None:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    break
                time.sleep(_LOCK_PAUSE)
        yield


@contextmanager
def plain_folder(parent: Path | str) -> Iterator[Path]:
    """A folder in `parent` for what a program of others' has to read as plain files, for as long as the body takes.

    It is gone afterwards, also when this process is killed: a watcher of a few kilobytes, in a session of its own,
    removes it once our end of its pipe is closed, however that came. Where the whole machine went, the next call for
    the same parent, or `sweep`, removes what is left.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    folder = parent / f"{PLAIN}{os.urandom(6).hex()}"
    # Held before the folder is there: nobody who sweeps ever sees it without its owner.
    with locked(_lock_of(folder)):
        folder.mkdir(mode=0o700)
        # The folder is an argument, never a part of the script.
        remove = 'cat > /dev/null; rm -rf -- "$1" "$2"'
        watcher = subprocess.Popen(
            ["/bin/sh", "-c", remove, "sh", str(folder.absolute()), str(_lock_of(folder).absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            watcher.stdin.close()  # type: ignore[union-attr]
            watcher.wait()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def sweep(*parents: Path) -> list[Path]:
    """Remove the folders of plain text in `parents` whose processes have ended; which they were."""
    removed = []
    for parent in parents:
        for folder in parent.glob(f"{PLAIN}*") if parent.is_dir() else ():
            if not folder.is_dir():
                continue
            with contextlib.suppress(Locked), locked(_lock_of(folder), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)
                removed.append(folder)
    return removed


class Spool:
    """Blobs kept on the disk in a file without a name: it goes with the process, however that ends."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="llmops-")  # noqa: SIM115  closed by `close`
        self._places: list[tuple[int, int]] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, data: bytes) -> None:
        """Append a blob."""
        self._file.seek(self._end)
        self._file.write(data)
        self._file.flush()
        self._places.append((self._end, len(data)))
        self._end += len(data)

    def read(self, number: int) -> bytes:
        """The blob of that number, counted from zero; from several threads at once if need be."""
        start, length = self._places[number]
        pieces = []
        while length:
            # One call gives no more than two gigabytes.
            piece = os.pread(self._file.fileno(), length, start)
            pieces.append(piece)
            start, length = start + len(piece), length - len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._file.close()
