"""A model's files as one tar archive that is sent while it is read."""

import tarfile
from collections.abc import Iterator

from images.console.state import State
from images.console.uploads import Folder
from llmops_assets.operations.model_entries import trained_version
from llmops_assets.operations.models import download

PIECE = 1024 * 1024
_BLOCK = 512


def weights(here: State, actor: str, ref: str) -> tuple[str, Iterator[bytes]]:
    """The name of the archive of a version's files, with its card, and its bytes. Raises as the operation does."""
    known = trained_version(here.wiring, ref)
    room = Folder(here.uploads)
    try:
        name, _ = download(here.wiring, actor, known, room.path / "model")
    except BaseException:
        room.close()
        raise
    return f"{name.replace('@', '-')}.tar", _tar(room, name.replace("@", "-"))


def _tar(room: Folder, folder: str) -> Iterator[bytes]:
    try:
        root = room.path / "model"
        for path in sorted(root.rglob("*")):
            if not path.is_file():
                continue
            info = tarfile.TarInfo(f"{folder}/{path.relative_to(root).as_posix()}")
            found = path.stat()
            info.size, info.mtime, info.mode = found.st_size, int(found.st_mtime), 0o644
            yield info.tobuf(tarfile.PAX_FORMAT)
            with open(path, "rb") as file:
                while piece := file.read(PIECE):
                    yield piece
            if rest := info.size % _BLOCK:
                yield bytes(_BLOCK - rest)
        yield bytes(2 * _BLOCK)
    finally:
        room.close()
