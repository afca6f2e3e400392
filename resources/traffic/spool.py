"""The spool of a gateway's worker: files beside it that take its log at once, whatever the database does.

spool/key                the key that seals it, where the installation has none of its own
spool/shipper.lock       held by who ships
spool/shipper.fault      what keeps it from shipping, while something does
spool/<worker>/lock      held by the worker as long as it lives
spool/<worker>/1.log …   segments, deleted when they were shipped
spool/<worker>/shipped   how far that is
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from llmops_assets.specs.settings import Settings
from resources.encryption import KEY_BYTES, Keyring
from resources.traffic.entries import Entry, Exposure, ShadowAnswer, encode
from resources.traffic.frames import frame

log = logging.getLogger("gateway.spool")

CAP_BYTES = 1 << 30
SEGMENT_BYTES = 8 << 20
_SEGMENT_SECONDS = 1.0
_FLUSH_SECONDS = 0.05
_SYNC_SECONDS = 1.0
_FRAME_ENTRIES = 500
_FRAME_BYTES = 4 << 20
_QUEUE_BYTES = 64 << 20
# With more segments than this waiting, the shipper is away: a new one each second would make too many files.
_MANY_SEGMENTS = 8


@dataclass(frozen=True, slots=True)
class Position:
    """How far a spool was shipped: everything before `offset` of `segment`, whose last entry has number `sequence`.

    exposures, ratings, refusals, shadows, embedded: those that are in the catalog; refused: entries that it would not
    take; damaged: bytes that could not be read; lost: entries that were in them.
    """

    segment: int = 1
    offset: int = 0
    sequence: int = 0
    exposures: int = 0
    ratings: int = 0
    refused: int = 0
    damaged: int = 0
    lost: int = 0
    refusals: int = 0
    shadows: int = 0
    embedded: int = 0

    @classmethod
    def read(cls, folder: Path) -> "Position":
        """Where shipping of a spool stands; its beginning where nothing says so: what is shipped twice stays once."""
        try:
            return cls(**json.loads((folder / "shipped").read_text()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, folder: Path) -> None:
        temporary = folder / "shipped.tmp"
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(folder / "shipped")


def spool_root(settings: Settings) -> Path:
    """The folder of the spools of an installation on this machine."""
    return settings.root / "spool"


def spool_keys(root: Path, keys: Keyring) -> Keyring:
    """The keys of the installation, or one of the spool's own, which only this user can read.

    What is in a spool was not masked yet, so it is never plain on the disk. A key beside it keeps it from backups of
    single files and from blocks of deleted ones, not from who may read the whole home.
    """
    path = root / "key"
    if not keys:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            log.debug("the spool has its key")
    if not path.exists():
        return keys
    deadline = time.monotonic() + 5
    while not (text := path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    own = bytes.fromhex(text)
    return Keyring([*(bytes.fromhex(part) for part in _hex_keys(keys)), own])


def _hex_keys(keys: Keyring) -> list[str]:
    return [part for value in keys.environment().values() for part in value.split(",")]


def note_fault(root: Path, fault: str | None) -> None:
    """Say what keeps the log from being shipped, to whom else it concerns; None: nothing does any more."""
    path = root / "shipper.fault"
    with contextlib.suppress(OSError):
        if fault is not None:
            path.write_text(fault, encoding="utf-8")
        elif path.exists():
            path.unlink()


def fault_of(root: Path) -> str | None:
    """What keeps the process that ships from shipping; None where it says nothing."""
    try:
        return (root / "shipper.fault").read_text(encoding="utf-8") or None
    except (OSError, UnicodeDecodeError):
        return None


def segments(folder: Path) -> list[int]:
    """The numbers of a spool's segments, the first one first."""
    return sorted(int(path.stem) for path in folder.glob("*.log") if path.stem.isdigit())


def worker_folders(root: Path) -> list[Path]:
    """The spools under a root, the oldest first."""
    return sorted(path.parent for path in root.glob("*/lock"))


def is_alive(folder: Path) -> bool:
    """Whether the worker that writes a spool still runs."""
    try:
        with open(folder / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def used_bytes(root: Path) -> int:
    """Bytes of all segments under a root."""
    total = 0
    for path in root.glob("*/*.log"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


class Spool:
    """Takes entries without ever waiting, and writes them by a thread of its own, a frame for what came together.

    What is queued and cannot be written (the disk is full, the cap is reached) is tried again; when the queue is full
    as well, entries are lost: `on_lost` is told the reason. Numbers are given to all entries, so that a gap tells of
    them. After a kill at most the last moment is missing (`_FLUSH_SECONDS`); after the machine's fall the last second.
    """

    def __init__(
        self,
        root: Path,
        keys: Keyring,
        *,
        capacity: int = 10_000,
        cap_bytes: int = CAP_BYTES,
        on_lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.root = root
        self.keys = spool_keys(root, keys)
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}-{secrets.token_hex(4)}"
        self.folder = root / name
        self.folder.mkdir(parents=True, mode=0o700)
        self._lock: IO[bytes] = open(self.folder / ".lock", "wb")  # noqa: SIM115  held until the worker ends
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Only now it is a spool to others: held from the first moment on.
        (self.folder / ".lock").rename(self.folder / "lock")
        self.fault: str | None = None
        self.sequence = 0
        self._capacity = capacity
        self._cap_bytes = cap_bytes
        self._on_lost = on_lost
        self._queue: deque[tuple[int, Entry]] = deque()
        self._weight = 0
        self._file: IO[bytes] | None = None
        self._segment = 0
        self._size = 0
        self._opened_at = self._synced_at = self._measured_at = -_SYNC_SECONDS
        self._used = 0
        self._is_dirty = False
        self._closing = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """What names this worker in the log."""
        return self.folder.name

    @property
    def queued(self) -> int:
        """Entries that are not in a file yet."""
        return len(self._queue)

    def append(self, entry: Entry) -> int | None:
        """Queue an entry; its number, or None when there is no room for it. Never waits."""
        self.sequence += 1
        weight = _weight(entry)
        if len(self._queue) >= self._capacity or self._weight + weight > _QUEUE_BYTES:
            self._on_lost("queue full" if self.fault is None else "not spooled")
            return None
        self._weight += weight
        self._queue.append((self.sequence, entry))
        return self.sequence

    def flush(self) -> bool:
        """Write what is queued into the current segment; False when it cannot be."""
        with self._turn:
            return self._flush()

    def close(self) -> None:
        """Write what is queued, make it last, and give the spool to who ships it."""
        self._closing.set()
        self._thread.join(10)
        with self._turn:
            self._flush()
            self._end_segment()
        for _ in range(len(self._queue)):
            self._on_lost("not spooled")
        self._lock.close()

    def _run(self) -> None:
        # Woken by the clock and not by each entry: waking would cost more than writing.
        while not self._closing.wait(_FLUSH_SECONDS):
            with self._turn:
                self._flush()
                self._sync()

    def _flush(self) -> bool:
        most = _FRAME_ENTRIES
        while self._queue:
            batch, data = self._next_batch(most)
            if not batch:
                continue
            try:
                self._write(frame(batch[0][0], len(batch), self.keys.seal(data)))
            except OSError as error:
                if len(batch) > 1:
                    most = len(batch) // 2
                    continue
                self._note(f"the spool {self.folder} cannot be written: {error.strerror or error}")
                self._give_way()
                return False
            for _ in batch:
                self._weight -= _weight(self._queue.popleft()[1])
            most = _FRAME_ENTRIES
        self._note(None)
        return True

    def _next_batch(self, most: int) -> tuple[list[tuple[int, Entry]], bytes]:
        """What the next frame holds; nothing when the first entry in the queue was none, and is out of it now."""
        batch = [self._queue[place] for place in range(min(most, len(self._queue)))]
        # Numbers in a frame follow each other; after a lost entry a new frame begins.
        batch = [pair for place, pair in enumerate(batch) if pair[0] == batch[0][0] + place]
        good, reason = len(batch), "too large"
        while good:
            try:
                data = encode([entry for _, entry in batch[:good]])
                if len(data) < min(_FRAME_BYTES, self._cap_bytes) or (good == 1 and len(data) < self._cap_bytes):
                    return batch[:good], data
                good //= 2
            except (ValueError, TypeError, OverflowError) as error:
                good //= 2
                reason = type(error).__name__
        number, entry = self._queue.popleft()
        self._weight -= _weight(entry)
        log.error("entry %d cannot be spooled: %s", number, reason)
        self._on_lost("refused")
        return [], b""

    def _note(self, fault: str | None) -> None:
        if fault is not None and self.fault is None:
            log.error("%s; answering goes on, and what finds no room is counted", fault)
        elif fault is None and self.fault is not None:
            log.info("the spool can be written again")
        self.fault = fault

    def _write(self, data: bytes) -> None:
        now = time.monotonic()
        if now - self._measured_at > _SYNC_SECONDS:
            self._used, self._measured_at = used_bytes(self.root), now
        if self._used + len(data) > self._cap_bytes:
            raise OSError(errno.EDQUOT, f"it holds {self._used:,} bytes of the {self._cap_bytes:,} that it may")
        if self._file is None or self._size + len(data) > SEGMENT_BYTES:
            self._begin_segment()
        assert self._file is not None
        descriptor, written = self._file.fileno(), 0
        try:
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except OSError:
            # Half a frame would be taken for damage.
            os.ftruncate(descriptor, self._size)
            raise
        self._size += len(data)
        self._used += len(data)
        self._is_dirty = True

    def _give_way(self) -> None:
        """Remove the segment at hand once all of it was shipped: there may be no room for the one that follows it."""
        self._measured_at = -_SYNC_SECONDS
        if not self._size:
            return
        position = Position.read(self.folder)
        if (position.segment, position.offset) == (self._segment, self._size):
            self._end_segment()
            (self.folder / f"{self._segment}.log").unlink(missing_ok=True)
            self._size = 0

    def _begin_segment(self) -> None:
        self._end_segment()
        number = self._segment + 1
        descriptor = os.open(self.folder / f"{number}.log", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._file, self._segment, self._size = os.fdopen(descriptor, "wb", buffering=0), number, 0
        self._opened_at = time.monotonic()

    def _end_segment(self) -> None:
        if self._file is not None:
            self._sync(at_once=True)
            self._file.close()
            self._file = None

    def _sync(self, *, at_once: bool = False) -> None:
        """Make written frames last, once a second, and end a segment then, so that it can be deleted once shipped."""
        now = time.monotonic()
        if self._file is None:
            return
        if self._is_dirty and (at_once or now - self._synced_at > _SYNC_SECONDS):
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self._note(f"the spool {self.folder} cannot be synced: {error.strerror or error}")
            self._synced_at, self._is_dirty = now, False
        is_old = self._size and now - self._opened_at > _SEGMENT_SECONDS
        if is_old and not at_once and len(segments(self.folder)) < _MANY_SEGMENTS:
            self._file.close()
            self._file = None


def _weight(entry: Entry) -> int:
    """About how many bytes an entry takes in memory."""
    if isinstance(entry, Exposure):
        return 500 + len(entry.body) + 2 * len(entry.query) + 2 * len(entry.context or "")
    return 500 + (len(entry.body) if isinstance(entry, ShadowAnswer) else 0)


def remove(folder: Path) -> None:
    """Remove the spool of a worker that ended, once all of it was shipped."""
    shutil.rmtree(folder, ignore_errors=True)
