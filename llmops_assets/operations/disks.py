"""The disks that the platform's own state lies on."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from llmops_assets.specs.settings import Settings


@dataclass(frozen=True)
class Disk:
    """One disk: the first thing of ours on it (`name`) with its folder, and its free and whole size in bytes."""

    name: str
    folder: Path
    free: int
    size: int


def disks_of(settings: Settings) -> list[Disk]:
    """The disks of the home and of the artifacts, each once; an object store has none that could be seen from here.

    A folder that is not made yet counts for the disk that it will be on.
    """
    places = {"home": settings.root}
    if "://" not in settings.artifacts:
        places["artifacts"] = Path(settings.artifacts)
    found: dict[int, Disk] = {}
    for name, folder in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        usage = shutil.disk_usage(there)
        found.setdefault(there.stat().st_dev, Disk(name, folder, usage.free, usage.total))
    return list(found.values())
