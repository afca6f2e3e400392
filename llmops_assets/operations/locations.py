"""Where files may be registered from by whoever does not own the machine: folders that were named, nothing else."""

import os
from collections.abc import Sequence
from pathlib import Path

from llmops_assets.operations.errors import Refused


def local_path(uri: str) -> Path | None:
    """The path that a URI means on this machine; None for one of another place."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return Path(uri.removeprefix("hf:")).expanduser()
    return Path(rest) if scheme.lower() in ("file", "local") else None


def checked_location(uri: str, allowed: Sequence[Path] | None) -> str:
    """What a URI names, with links followed; raises Refused for what does not lie in one of the `allowed` folders.

    None allows everything: whoever asks owns the machine. Else no other scheme passes: an address of the network would
    be asked by this machine, with its credentials, from inside its network (http://169.254.169.254, a bucket of
    somebody else's), whatever it redirects to and whatever its name means a moment later; and chained addresses
    (`simplecache::file:///…`) are files of this machine again.
    """
    source = local_path(uri)
    if allowed is None:
        return str(source or uri)
    if source is None or "::" in uri:
        raise Refused(
            f"{uri[:200]!r} may not be read from here: files are uploaded, or registered by path from the folders of "
            "LLMOPS_IMPORT_ROOTS"
        )
    refuse_outside(source, allowed)
    found = source.resolve()
    for folder, _, names in os.walk(found):
        for name in names:
            # A link to a file may lead out of the folder; one to a folder is not followed, here or where it is read.
            refuse_outside(Path(folder) / name, allowed)
    return str(found)


def refuse_outside(path: Path, allowed: Sequence[Path] | None) -> None:
    """Raise Refused for a path that does not lie in one of the `allowed` folders, links followed; None allows any."""
    if allowed is None or any(path.resolve().is_relative_to(folder.resolve()) for folder in allowed):
        return
    where = ", ".join(map(str, allowed)) or "none is set"
    raise Refused(
        f"{path} may not be read from here: files are registered by path from the folders of LLMOPS_IMPORT_ROOTS "
        f"({where})"
    )
