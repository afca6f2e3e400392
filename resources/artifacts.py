"""The one place where files of the platform lie: a local folder, or any fsspec URL such as ``s3://bucket/prefix``."""

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from upath import UPath

from resources import files
from resources.encryption import NO_KEYS, Keyring

if TYPE_CHECKING:
    # Workers keep their files by this module, and have no settings.
    from llmops_assets.specs.settings import Settings


def write_bytes_atomically(target: UPath, data: bytes) -> None:
    """Write `data` so that a reader sees the old content or the new, never a part.

    Locally by `files.write_bytes`; on an object store one put is atomic already. Missing parent folders are made.
    """
    if not isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return
    files.write_bytes(target, data)


class Artifacts:
    """Paths under one root. No name, whatever a user typed, leads outside of it.

    With `keys`, what is written here is sealed at rest and opened on reading; paths lead to the sealed bytes.
    """

    def __init__(self, root: str | os.PathLike[str], keys: Keyring = NO_KEYS) -> None:
        self.root = UPath(root)
        self.keys = keys
        if isinstance(self.root, Path):
            self.root = UPath(self.root.expanduser().absolute())

    @property
    def is_local(self) -> bool:
        return isinstance(self.root, Path)

    def upath(self, *parts: str) -> UPath:
        """The path of `parts` under the root; each part may hold several segments ("reports/q1.html").

        Raises ValueError for an absolute part, for ``..``, for a NUL or backslash, and for a symbolic link that
        points out of the root.
        """
        segments: list[str] = []
        for part in parts:
            pure = PurePosixPath(part)
            if not part or pure.is_absolute() or ".." in pure.parts or "\0" in part or "\\" in part:
                raise ValueError(f"{part!r} is not a path inside the artifact root {self.root}: use a relative name")
            segments.extend(pure.parts)
        target = self.root.joinpath(*segments) if segments else self.root
        if self.is_local and not target.resolve().is_relative_to(self.root.resolve()):
            raise ValueError(f"{'/'.join(segments)!r} leads out of the artifact root {self.root} by a symbolic link")
        return target

    def path(self, *parts: str) -> Path:
        """Like `upath`, as a `pathlib.Path`: for what needs a real file, such as a model folder.

        Raises RuntimeError when the root is not a local folder.
        """
        target = self.upath(*parts)
        if not isinstance(target, Path):
            raise RuntimeError(f"{target} is not on this machine: this step needs a local artifact root")
        return Path(target)

    def write_bytes(self, data: bytes, *parts: str) -> UPath:
        """Write `data` atomically at `parts` and return where it lies."""
        target = self.upath(*parts)
        write_bytes_atomically(target, self.keys.seal(data))
        return target

    def write_text(self, text: str, *parts: str) -> UPath:
        """Write `text` as UTF-8, atomically, at `parts` and return where it lies."""
        return self.write_bytes(text.encode("utf-8"), *parts)

    def read_bytes(self, *parts: str) -> bytes:
        target = self.upath(*parts)
        return self.keys.open(target.read_bytes(), target)

    def read_text(self, *parts: str) -> str:
        return self.read_bytes(*parts).decode("utf-8")

    def exists(self, *parts: str) -> bool:
        return self.upath(*parts).exists()


def open_artifacts(settings: "Settings") -> Artifacts:
    """The artifact root of an installation, by its settings."""
    return Artifacts(settings.artifacts, Keyring.of_settings(settings))
