"""Files kept once, under the hash of their bytes: what did not change since the last backup takes no room."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from resources import files

COPYING = ".copy-"
"""How folders begin in which a database is copied."""
_PIECE = 1 << 20


class BackupDamaged(RuntimeError):
    """A file of a backup is missing, or is not what was backed up; the message names it."""


class Objects:
    """The files below `<root>/objects`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the file of a hash lies."""
        return self.root / "objects" / sha256[:2] / sha256

    def add(self, source: BinaryIO | Iterable[bytes]) -> tuple[str, int]:
        """Keep what a stream holds from here to its end; its hash and size in bytes."""
        digest, size = hashlib.sha256(), 0
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        waiting = self.root / "objects" / f".{os.getpid()}.{os.urandom(6).hex()}"
        with files.replacing(waiting, mode=0o400) as target:
            for piece in _pieces(source):
                digest.update(piece)
                size += len(piece)
                target.write(piece)
        sha256 = digest.hexdigest()
        place = self.path(sha256)
        place.parent.mkdir(exist_ok=True, mode=0o700)
        # Also where it is there already: that one may be damaged, and this one is not.
        waiting.replace(place)
        return sha256, size

    def remove_left(self) -> None:
        """Remove what a process that was killed has left half done. Only whoever keeps others from it may."""
        for path in (*(self.root / "objects").glob(".*"), *(self.root / "objects").glob("??/.*")):
            path.unlink()
        for path in self.root.glob(f"{COPYING}*"):
            shutil.rmtree(path)

    def restore(self, sha256: str, target: Path, mode: int, mtime_ns: int) -> None:
        """Write the file of a hash to `target`, checked on the way. BackupDamaged where it is not what was kept."""
        digest = hashlib.sha256()
        try:
            with self.path(sha256).open("rb") as source, files.replacing(target, mode=mode) as out:
                for piece in _pieces(source):
                    digest.update(piece)
                    out.write(piece)
                if digest.hexdigest() != sha256:
                    raise BackupDamaged(f"{self.path(sha256)} was changed since: it was to become {target}")
        except FileNotFoundError as error:
            if self.path(sha256).exists():
                raise
            raise BackupDamaged(f"{self.path(sha256)} is missing: it was to become {target}") from error
        os.utime(target, ns=(mtime_ns, mtime_ns))

    def fault(self, sha256: str) -> str | None:
        """What is wrong with the file of a hash; None where nothing is."""
        path, digest = self.path(sha256), hashlib.sha256()
        try:
            with path.open("rb") as source:
                for piece in _pieces(source):
                    digest.update(piece)
        except OSError as error:
            return f"{path}: {error.strerror or error}"
        return None if digest.hexdigest() == sha256 else f"{path} was changed since it was backed up"


def _pieces(source: BinaryIO | Iterable[bytes]) -> Iterable[bytes]:
    if not hasattr(source, "read"):
        yield from source
        return
    while piece := source.read(_PIECE):
        yield piece
