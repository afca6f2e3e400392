"""What writers of the dataset store hold while no manifest names it yet."""

import secrets
from pathlib import Path

from upath import UPath

from resources import process

LEASES = "leases"
"""Folder of what writers hold that no manifest names yet."""


class Lease:
    """What one writer relies on that no manifest names yet: an empty file a chunk, so that no collector deletes it.

    It says which process holds it. One whose process is gone, or which was not added to for the collector's grace
    period where that cannot be told (another machine's), counts no more.
    """

    def __init__(self, root: UPath) -> None:
        self._folder = root / LEASES / f"{process.identity()}.{secrets.token_hex(8)}"
        self._held: set[str] = set()

    def hold(self, sha256: str) -> None:
        """Keep a chunk from being deleted until `release`."""
        if sha256 in self._held:
            return
        if not self._held:
            self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / sha256).write_bytes(b"")
        self._held.add(sha256)

    def release(self) -> None:
        """Give up all, once a manifest names them."""
        for sha256 in self._held:
            (self._folder / sha256).unlink(missing_ok=True)
        if self._held and isinstance(self._folder, Path):
            self._folder.rmdir()
        self._held = set()
