"""How far the gateway's log on this machine is from the catalog."""

from pathlib import Path

from resources.traffic.spool import Position, segments, worker_folders


def waiting_since(root: Path) -> float | None:
    """Since when something under a root has waited to be shipped, in seconds since the epoch; None where nothing does.

    It is told from the last write of a segment that is not shipped to its end, so it is never too long ago.
    """
    found: list[float] = []
    for folder in worker_folders(root):
        position = Position.read(folder)
        for number in segments(folder):
            try:
                state = (folder / f"{number}.log").stat()
            except FileNotFoundError:
                continue
            at = position.offset if number == position.segment else 0
            if number >= position.segment and state.st_size > at:
                found.append(state.st_mtime)
    return min(found, default=None)
