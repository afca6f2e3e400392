"""How far the gateway's log on this machine is from the catalog."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from resources.encryption import HEADER, MAGIC, is_sealed
from resources.traffic.frames import Frame, frames
from resources.traffic.spool import Position, segments, worker_folders


def waiting_since(root: Path) -> float | None:
    """Since when something under a root has waited to be shipped, in seconds since the epoch; None where nothing does.

    It is told from the last write of a segment that is not shipped to its end, so it is never too long ago.
    """
    return min((written for _, _, written in _waiting(root)), default=None)


def under_other_keys(root: Path, keys: Sequence[str]) -> int:
    """Segments that wait to be shipped, and are sealed with a key that is not one of these ids: nobody else can read
    what is in them, so that key is needed until they were shipped."""
    count = 0
    for path, at, _ in _waiting(root):
        try:
            found = list(frames(path.read_bytes(), at, is_complete=False))
        except FileNotFoundError:
            continue
        payloads = (one.payload[:HEADER] for one in found if isinstance(one, Frame))
        ids = {head[len(MAGIC) : len(MAGIC) + 8].hex() for head in payloads if is_sealed(head)}
        count += bool(ids - set(keys))
    return count


def _waiting(root: Path) -> Iterator[tuple[Path, int, float]]:
    """Segments that are not shipped to their end, how far each is, and when it was written last."""
    for folder in worker_folders(root):
        position = Position.read(folder)
        for number in segments(folder):
            path = folder / f"{number}.log"
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            at = position.offset if number == position.segment else 0
            if number >= position.segment and state.st_size > at:
                yield path, at, state.st_mtime
