"""Ships spools to the catalog: opens, masks and writes what gateways logged, in their order, and nothing twice."""

import fcntl
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from resources.catalog import Catalog
from resources.encryption import MAGIC, EncryptionError, Keyring
from resources.traffic import owner, spool
from resources.traffic.entries import Entry, Exposure, decode
from resources.traffic.frames import Damage, Frame, frames
from resources.traffic.rows import Row, Rows
from resources.traffic.spool import Position

log = logging.getLogger("gateway.shipper")

_Rows = dict[str, list[Row]]
_KINDS = ("exposures", "ratings", "refusals", "shadows", "embedded")
"""In the order in which the catalog takes them."""
_BATCH_ENTRIES = 500
AWAY = (OperationalError, PoolTimeout, OSError)
"""What says that the catalog cannot be reached now, and that nothing is wrong with a row."""


class CannotShip(RuntimeError):
    """The catalog is away, or a key is missing: everything stays where it is, and is shipped later."""


@dataclass
class _Batch:
    """Entries with their numbers, and where a spool stands once they are written."""

    entries: list[tuple[int, Entry]] = field(default_factory=list)
    position: Position = field(default_factory=Position)


class Shipper:
    """Writes what lies in the spools under `root` to the catalog. One ships at a time: see `turn`.

    `mask` replaces personal data in a text; `slow_ms` is what the policy calls slow. Every row has an id, so that a
    batch which is written twice stays once, and where a spool stands is noted after its rows are committed: whoever
    ends this in between loses nothing.
    """

    def __init__(
        self,
        root: Path,
        catalog: Catalog,
        mask: Callable[[str], str],
        keys: Keyring,
        *,
        slow_ms: float = 2000.0,
        on_position: Callable[[str, Position], None] = lambda worker, position: None,
    ) -> None:
        self.root = root
        self.catalog = catalog
        self.rows = Rows(mask, salt_of=catalog.salt_of)
        self._keys = keys
        self._slow_ms = slow_ms
        self._on_position = on_position
        self._is_ours = False

    @contextmanager
    def turn(self, *, wait: bool) -> Iterator[bool]:
        """Be the one who ships from here; False when another does (and `wait` is not set)."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(self.root / "shipper.lock", "a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def ship(self) -> int:
        """Ship all that is there; how many entries that were. Call it in `turn`.

        Raises CannotShip when the catalog cannot be reached or a key is missing; what stays is shipped by a later call.
        """
        if not self._is_ours:
            self._claim()
        # Workers come and go; those that make the key first write behind it.
        keys = spool.spool_keys(self.root, self._keys)
        done = 0
        faults: list[str] = []
        for folder in spool.worker_folders(self.root):
            try:
                done += self._ship_one(folder, keys)
            except EncryptionError as error:
                # What one worker sealed with a key that is not here does not hold the others' up.
                faults.append(f"{folder.name}: {error}")
        if faults:
            raise CannotShip("; ".join(faults))
        return done

    def ship_what_is_there(self, seconds: float = 30.0) -> None:
        """Ship what was spooled until now, or wait until who ships has done it; CannotShip when it does not come to it.

        For who must know that nothing more of before is on its way to the catalog.
        """
        if not self.root.exists():
            return
        wanted = {folder: _end(folder) for folder in spool.worker_folders(self.root)}
        until = time.monotonic() + seconds
        while True:
            with self.turn(wait=False) as is_ours:
                if is_ours:
                    self.ship()
                    return
            left = [folder for folder, end in wanted.items() if folder.exists() and _at(folder) < end]
            if not left:
                return
            if time.monotonic() > until:
                raise CannotShip(f"{len(left)} spools under {self.root} are not shipped after {seconds:g} s")
            time.sleep(0.1)

    def _claim(self) -> None:
        """See that what lies here was logged for this catalog."""
        try:
            owner.claim(self.root, self.catalog.identity, self.catalog.url)
        except owner.ForeignSpool as error:
            raise CannotShip(str(error)) from error
        except AWAY as error:
            raise CannotShip(f"the log cannot be written yet: {reason(error)}") from error
        self._is_ours = True

    def _ship_one(self, folder: Path, keys: Keyring) -> int:
        done = 0
        # Asked before reading: what a worker wrote before it ended is read below.
        is_alive = spool.is_alive(folder)
        position = Position.read(folder)
        numbers = spool.segments(folder)
        for number in numbers:
            if number < position.segment:
                (folder / f"{number}.log").unlink(missing_ok=True)
                continue
            if number > position.segment:
                position = replace(position, segment=number, offset=0)
            is_complete = number < numbers[-1] or not is_alive
            try:
                data = (folder / f"{number}.log").read_bytes()
            except FileNotFoundError:
                # Its worker needed the room, and saw that all of it was shipped.
                continue
            for batch in _batches(data, position, keys, f"{folder.name}/{number}.log", is_complete=is_complete):
                position = self._write(folder.name, batch, position)
                position.write(folder)
                self._on_position(folder.name, position)
                done += len(batch.entries)
            if number < numbers[-1]:
                position = replace(position, segment=number + 1, offset=0)
                position.write(folder)
                (folder / f"{number}.log").unlink(missing_ok=True)
        if not is_alive:
            if position.lost or position.refused:
                log.error(
                    "%s ended: of its entries %d were in damaged bytes and %d were refused",
                    folder.name, position.lost, position.refused,
                )  # fmt: skip
            spool.remove(folder)
        return done

    def _write(self, worker: str, batch: _Batch, before: Position) -> Position:
        salts = {entry.request_id: entry.salt for _, entry in batch.entries if isinstance(entry, Exposure)}
        rows: _Rows = {kind: [] for kind in _KINDS}
        for sequence, entry in batch.entries:
            try:
                kind, row = self.rows.of(entry, worker, salts)
                rows[kind].append(row | {"worker": worker, "sequence": sequence})
            except AWAY as error:
                raise _away(len(batch.entries), error) from error
            except Exception as error:  # noqa: BLE001  a text that cannot be masked is not written, and ends nothing
                log.error("entry %s cannot be masked: %s", entry.request_id, reason(error))
        done = self._insert(rows)
        counts = {kind: getattr(before, kind) + done[kind] for kind in _KINDS}
        refused = before.refused + len(batch.entries) - sum(done.values())
        return replace(batch.position, **counts, refused=refused)

    def _insert(self, rows: _Rows) -> dict[str, int]:
        """Write rows, each on its own when the catalog refuses them; how many of each kind it took."""
        every = [(kind, row) for kind in _KINDS for row in rows[kind]]
        try:
            self.catalog.add_traffic(*(rows[kind] for kind in _KINDS), slow_ms=self._slow_ms)
        except AWAY as error:
            raise _away(len(every), error) from error
        except Exception as error:  # noqa: BLE001  whatever is wrong with a row, the others are written
            if len(every) > 1:
                each = [self._insert({name: [row] if name == kind else [] for name in _KINDS}) for kind, row in every]
                return {kind: sum(done[kind] for done in each) for kind in _KINDS}
            row = every[0][1]
            log.error("entry %s cannot be written: %s", row.get("request_id", row.get("id")), reason(error))
            return dict.fromkeys(_KINDS, 0)
        return {kind: len(rows[kind]) for kind in _KINDS}


def _batches(data: bytes, position: Position, keys: Keyring, what: str, *, is_complete: bool) -> Iterator[_Batch]:
    """What a segment holds behind a position, in pieces; damaged bytes are counted and left out."""
    batch = _Batch(position=position)
    for found in frames(data, position.offset, is_complete=is_complete):
        now = replace(batch.position, offset=found.end)
        if isinstance(found, Damage):
            log.error("%s: %d bytes up to %d cannot be read and are left out", what, found.size, found.end)
            batch.position = replace(now, damaged=now.damaged + found.size)
        else:
            entries = _entries(found, keys, what)
            # What a gap in the numbers leaves out was in damaged bytes, or never found room in the spool.
            missing = found.first - batch.position.sequence - 1
            lost = max(0, missing) + (found.count - len(entries))
            sequence = found.first + found.count - 1
            batch.position = replace(now, sequence=sequence, lost=now.lost + lost)
            batch.entries += [(found.first + place, entry) for place, entry in enumerate(entries)]
        if len(batch.entries) >= _BATCH_ENTRIES:
            yield batch
            # The counts of what is written are the writer's; it goes on from what it said last.
            batch = _Batch(position=batch.position)
    if batch.position.offset > position.offset or batch.entries:
        yield batch


def _entries(found: Frame, keys: Keyring, what: str) -> list[Entry]:
    try:
        return decode(keys.open(found.payload, what))
    except EncryptionError:
        # A key that is not here may come; what was altered under one that is here stays so.
        if found.payload[len(MAGIC) : len(MAGIC) + 8].hex() not in keys.ids:
            raise
        log.error("%s: the entries from %d on were altered", what, found.first)
        return []
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("%s: the entries from %d on are none that this version knows: %s", what, found.first, error)
        return []


def _end(folder: Path) -> tuple[int, int]:
    """The last segment of a spool and its size."""
    number = max(spool.segments(folder), default=0)
    try:
        return number, (folder / f"{number}.log").stat().st_size
    except FileNotFoundError:
        return number, 0


def _at(folder: Path) -> tuple[int, int]:
    position = Position.read(folder)
    return position.segment, position.offset


def _away(count: int, error: Exception) -> CannotShip:
    return CannotShip(f"{count} entries of the log cannot be written yet: {reason(error)}")


def reason(error: Exception) -> str:
    """What went wrong, without the parameters of the statement: users' words have no place in a program's log."""
    return f"{type(error).__name__}: {getattr(error, 'orig', None) or type(error).__name__}"
