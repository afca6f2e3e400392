"""Keeps what each asset leaves behind: one JSON file per asset and partition."""

from pathlib import Path
from typing import TypeVar

from llmops_assets.records.base import PATHS, Record
from llmops_assets.specs.names import check_key
from resources import files
from resources.encryption import NO_KEYS, Keyring
from resources.stored_paths import StoredPaths

R = TypeVar("R", bound=Record)


class Records:
    """Saves and loads records below a folder. Writes are atomic; the last one counts.

    Some show a row (the rendered example of a plan, wrong answers), so with `keys` all are sealed at rest. A path in a
    record is written by the root of `paths` that it lies under (by default the folder beside this one), and is
    absolute again when it is loaded.
    """

    def __init__(self, root: Path | str, keys: Keyring = NO_KEYS, paths: StoredPaths | None = None) -> None:
        self.root = Path(root)
        self.keys = keys
        self.paths = paths or StoredPaths(self.root.absolute().parent)

    def path(self, record: type[Record], partition: str) -> Path:
        # A cell's key joins two keys with "|", which some file systems refuse.
        parts = [check_key(part) for part in partition.split("|")]
        return self.root.joinpath(record.asset, *parts[:-1], f"{parts[-1]}.json")

    def save(self, partition: str, record: Record) -> Path:
        path = self.path(type(record), partition)
        text = record.model_dump_json(indent=1, context={PATHS: self.paths})
        files.write_bytes(path, self.keys.seal(text.encode()), mode=0o600)
        return path

    def load(self, record: type[R], partition: str) -> R:
        """The record of an asset's partition; FileNotFoundError names the asset to materialise when there is none."""
        path = self.path(record, partition)
        if not path.exists():
            raise FileNotFoundError(
                f"asset {record.asset!r} has no result for partition {partition!r}: materialise it first"
            )
        return self._read(record, path)

    def find(self, record: type[R], partition: str) -> R | None:
        """The record of an asset's partition, or None when there is none yet."""
        return self.load(record, partition) if self.path(record, partition).exists() else None

    def all(self, record: type[R]) -> list[R]:
        """Every record of an asset, the one written last first."""
        paths = sorted((self.root / record.asset).rglob("[!.]*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
        return [self._read(record, p) for p in paths]

    def _read(self, record: type[R], path: Path) -> R:
        return record.model_validate_json(self.keys.open(path.read_bytes(), path), context={PATHS: self.paths})
