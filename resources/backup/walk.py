"""The files of an installation that a backup holds, those that it leaves out, and those that hold keys."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from resources.backup.snapshot import Root
from resources.backup.sqlite import BESIDE
from resources.files import PLAIN

KEYS = (".key", ".token")
"""How files end that hold keys: with the data they would open it, or open the gateway."""
MARKER = ".restoring.json"
"""What lies in a home that is being restored, until all of it is there."""

DERIVED = ("cache",)
"""Folders of the home with what is made anew of what is installed: a server's `LLMOPS_CACHE`."""
_NOT_KEPT_FOLDERS = ("catalog.db.locks", "gpus", "pipes", "incoming", *DERIVED)
_OF_PROCESSES = ("up.json", "components.json", "workspace.yaml")
_NOT_KEPT_SUFFIXES = (*BESIDE, ".lock", ".migrating", ".sock", ".tmp", ".pid")


@dataclass(frozen=True)
class Found:
    """A file, or a link with where it leads (None for a file)."""

    root: Root
    name: str
    path: Path
    target: str | None = None


def is_key(name: str) -> bool:
    """Whether a file of the home, by its name in it, holds a key."""
    return name.endswith(KEYS) or name == "spool/key"


def is_kept(root: Root, name: PurePosixPath) -> bool:
    """Whether a file belongs to a backup: locks, half-written files and what only a running process has do not.

    The locks of spools do: they tell a spool from another folder, and are nobody's once they are restored.
    """
    if root == "home" and name.parts[0] in _NOT_KEPT_FOLDERS:
        return False
    if any(part.startswith(PLAIN) for part in name.parts):
        return False
    if name.name.startswith(".") and name.name.endswith((".tmp", ".lock")):
        return False
    return not name.name.endswith(_NOT_KEPT_SUFFIXES) and str(name) not in (MARKER, *_OF_PROCESSES)


def walk(root: Root, folder: Path, without: tuple[Path, ...] = ()) -> Iterator[Found]:
    """Files and symbolic links below a folder, in order; what goes away meanwhile is not among them."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(n for n in folders if n not in links and here / n not in without)
        for name in sorted([*names, *links]):
            path = here / name
            if path in without:
                continue
            relative = path.relative_to(folder)
            if not is_kept(root, PurePosixPath(relative.as_posix())):
                continue
            if path.is_symlink():
                yield Found(root, relative.as_posix(), path, os.readlink(path))
            elif path.is_file():
                yield Found(root, relative.as_posix(), path)
