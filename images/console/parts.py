"""Files that arrive in pieces: sealed where a key is set, so that none lies plain on the disk until registered."""

import hashlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from resources import files
from resources.encryption import Keyring

KEPT_SECONDS = 7 * 24 * 3600
"""How long pieces wait for the rest of their file."""

_PIECE = 1 << 20
_SUFFIX = ".pieces"
_NAME = re.compile(r"\d{15}-\d+")


def folder_of(uploads: Path, actor: str, key: str) -> Path:
    """Where the pieces of one person's upload of a version lie."""
    return uploads / f"{key}.{hashlib.sha256(actor.encode()).hexdigest()[:12]}"


def collect(folder: Path, target: Path, keys: Keyring) -> None:
    """Write the files whose pieces lie in `folder` into `target`, as they were sent. EncryptionError without a key."""
    for name in sorted({path.name.removesuffix(_SUFFIX) for path in folder.iterdir()}):
        with open(target / name, "xb") as file:
            for piece in Part(folder, name, keys).pieces():
                file.write(keys.open(piece.read_bytes(), piece.name))


def keep(folder: Path, pieces: Path, keys: Keyring) -> None:
    """Write the files in `folder` as pieces into `pieces`, sealed where a key is set; what was there before is gone."""
    shutil.rmtree(pieces, ignore_errors=True)
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        Part(pieces, file.name, keys).put(file)


def forget_old(uploads: Path) -> None:
    """Remove what an upload left behind that was killed, and pieces that nobody went on with for `KEPT_SECONDS`."""
    files.sweep(uploads)
    for folder in uploads.glob("*@*") if uploads.is_dir() else ():
        found = [folder, *folder.rglob("*")]
        if all(time.time() - path.stat().st_mtime > KEPT_SECONDS for path in found):
            shutil.rmtree(folder, ignore_errors=True)


class Part:
    """A file that arrives in pieces: what is there of it survives a connection that breaks, and a restart.

    A piece is a file of its own, named by where it begins and how long it is, and there as a whole or not at all.
    """

    def __init__(self, folder: Path, name: str, keys: Keyring) -> None:
        self.name, self.keys = name, keys
        self._plain = folder / name
        self._folder = folder / (name + _SUFFIX)

    @property
    def size(self) -> int:
        """Bytes of the file that have arrived."""
        return sum(_length(piece) for piece in self.pieces())

    def pieces(self) -> list[Path]:
        """The pieces that follow each other from the beginning; a file that an earlier version began is the first."""
        found = [self._plain] if self._plain.is_file() else []
        end = sum(_length(piece) for piece in found)
        for piece in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            if _NAME.fullmatch(piece.name) and int(piece.name.partition("-")[0]) == end:
                found.append(piece)
                end += _length(piece)
        return found

    def put(self, file: Path) -> None:
        """Take over a file that is there as a whole."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        at = 0
        with open(file, "rb") as stream:
            while (data := stream.read(_PIECE)) or not at:
                self._put(at, data)
                at += len(data)
                if not data:
                    return

    async def append(self, chunks: AsyncIterator[bytes], in_thread: Callable[..., Awaitable[object]]) -> None:
        """Add what comes in chunks; what has come when they break off is kept."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        at, held = self.size, bytearray()
        try:
            async for chunk in chunks:
                held += chunk
                while len(held) >= _PIECE:
                    await in_thread(self._put, at, bytes(held[:_PIECE]))
                    at += _PIECE
                    del held[:_PIECE]
        finally:
            if held:
                self._put(at, bytes(held))

    def _put(self, at: int, data: bytes) -> None:
        target = self._folder / f"{at:015d}-{len(data)}"
        files.write_bytes(target, self.keys.seal(data), mode=0o600, durable=False)


def _length(piece: Path) -> int:
    """Bytes of the file that a piece holds."""
    _, dash, length = piece.name.partition("-") if piece.parent.name.endswith(_SUFFIX) else ("", "", "")
    return int(length) if dash else piece.stat().st_size
