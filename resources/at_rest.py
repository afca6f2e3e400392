"""Which files of an installation are sealed at rest, how many are, and their change to another key."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from upath import UPath

from resources.artifacts import Artifacts, write_bytes_atomically
from resources.encryption import HEADER, MAGIC, EncryptionError, Keyring, is_sealed
from resources.files import sweep
from resources.records import Records

_TRAINED = ("evaluation", "plan")
"""What holds rows in the folder of a training; weights and checkpoints beside it hold none and stay as they are."""


@dataclass
class Resealed:
    """`sealed`: files that were plain; `changed`: files that had another key; `kept`: had this one already.

    `waiting`: files of the gateway's log that have another key until they are shipped.
    """

    sealed: int = 0
    changed: int = 0
    kept: int = 0
    bytes: int = 0
    waiting: int = 0


def holds_rows(name: PurePosixPath) -> bool:
    """Whether a file of the artifact root, named relative to it, may hold the text of rows."""
    parts = name.parts
    if name.name.startswith(".") or name.name.endswith(".tmp"):
        return False
    if parts[0] == "datasets":
        return parts[1] == "chunks"
    if parts[0] == "models":
        inside = parts[4:]
        return bool(inside) and inside[0] in _TRAINED and name.suffix in (".jsonl", ".html", ".parquet")
    if parts[0] == "answers":
        # What lies beside the folders are verdicts of a judge by hashes, appended to line by line.
        return len(parts) > 2 and name.suffix == ".jsonl"
    return True


def remove_remains(artifacts: Artifacts) -> list[Path]:
    """Remove plain text that a machine which went down left: of programs of others, which read plain files only."""
    if not artifacts.is_local:
        return []
    root = Path(str(artifacts.root))
    parents = ("answers/*", "models/*/*/*/work", "models/*/*/*/work/axolotl", "models/*/*/*/compressed/*/*-work")
    return sweep(*(folder for pattern in parents for folder in root.glob(pattern)))


def files(artifacts: Artifacts, records: Records) -> Iterator[UPath]:
    """Every file that belongs sealed, in a stable order."""
    for root, wanted in ((artifacts.root, holds_rows), (UPath(records.root), _is_record)):
        if root.exists():
            # Symbolic links may lead anywhere: what they point to is not ours to change.
            found = [path for path in root.rglob("*") if path.is_file() and not _is_link(path)]
            yield from sorted(path for path in found if wanted(PurePosixPath(path.relative_to(root).as_posix())))


def _is_record(name: PurePosixPath) -> bool:
    return not name.name.startswith(".")


def status(artifacts: Artifacts, records: Records) -> dict[str, int]:
    """Files by the id of the key that they are sealed with; ``plain`` counts those that are not sealed."""
    return dict(Counter(key or "plain" for _, key in _by_key(artifacts, records)))


def reseal(
    artifacts: Artifacts, records: Records, keys: Keyring, progress: Callable[[int], None] = lambda done: None
) -> Resealed:
    """Seal every file that holds rows under the first of `keys`, whatever it is under now.

    Each file is written beside itself and renamed, so it is there under the old key or under the new one. Cut off at
    any point, the same call completes it. Raises EncryptionError, before anything is changed, when there is no key, or
    when a file is sealed with one that is not among `keys`.
    """
    if not keys:
        raise EncryptionError("there is no key to seal with: set LLMOPS_ENCRYPTION_KEY or LLMOPS_ENCRYPTION_KEY_FILE")
    todo = list(_by_key(artifacts, records))
    strange = sorted({key for _, key in todo if key and key not in keys.ids})
    if strange:
        count = sum(key in strange for _, key in todo)
        raise EncryptionError(
            f"{count:,} files are sealed with key {', '.join(strange)}, which is not here: give it behind the new one, "
            "LLMOPS_ENCRYPTION_KEY=NEW,OLD"
        )
    done = Resealed()
    for path, key in todo:
        if key == keys.ids[0]:
            done.kept += 1
            continue
        size = _change(path, keys)
        if size is None:
            continue
        done.bytes += size
        if key is None:
            done.sealed += 1
        else:
            done.changed += 1
        progress(done.sealed + done.changed)
    return done


def _change(path: UPath, keys: Keyring) -> int | None:
    """Seal one file anew under the first key, in pieces; its size, or None when it was replaced or erased meanwhile."""
    if not isinstance(path, Path):
        data = keys.open(path.read_bytes(), path)
        path.write_bytes(keys.seal(data))
        return len(data)
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.tmp")
    try:
        before = path.stat()
        with keys.reader(path.open("rb"), path) as source, open(temporary, "wb") as target:
            keys.copy_sealed(source, target)
            target.flush()
            os.fsync(target.fileno())
        os.chmod(temporary, before.st_mode & 0o777)
        # The time of a record says which was written last; another key is no news.
        os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
        now = path.stat()
        if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
            return None
        os.replace(temporary, path)
        _keep_seal(path)
    except FileNotFoundError:
        if path.exists():
            raise
        return None
    finally:
        Path(temporary).unlink(missing_ok=True)
    return before.st_size


def _keep_seal(path: Path) -> None:
    """Where a folder of a training lists the hashes of its files, list the new one: the rows are still the same."""
    listing = path.parent / "complete.json"
    if not listing.exists():
        return
    seal = json.loads(listing.read_text(encoding="utf-8"))
    if path.name in seal.get("files", {}):
        with open(path, "rb") as file:
            seal["files"][path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        write_bytes_atomically(UPath(listing), json.dumps(seal, indent=1).encode())


def _by_key(artifacts: Artifacts, records: Records) -> Iterator[tuple[UPath, str | None]]:
    """Every file with the id of its key; one that was deleted since it was listed is none."""
    for path in files(artifacts, records):
        try:
            key = _key_of(path)
        except FileNotFoundError:
            continue
        yield path, key


def _key_of(path: UPath) -> str | None:
    with path.open("rb") as file:
        head = file.read(HEADER)
    return head[len(MAGIC) : len(MAGIC) + 8].hex() if is_sealed(head) else None


def _is_link(path: UPath) -> bool:
    return isinstance(path, Path) and path.is_symlink()
