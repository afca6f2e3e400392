"""Keeps what each asset leaves behind: one JSON file per asset and partition."""

import hashlib
import logging
from collections.abc import Set
from pathlib import Path
from typing import Protocol, TypeVar

from llmops_assets.records.base import PATHS, Record
from llmops_assets.specs.names import check_key
from resources import files
from resources.encryption import NO_KEYS, EncryptionError, Keyring
from resources.stored_paths import StoredPaths

R = TypeVar("R", bound=Record)

_READINGS = 3

log = logging.getLogger("records")


class RecordChanged(ValueError):
    """A record is not what its asset wrote; the message says which, and what to do."""


class Digests(Protocol):
    """Where it is kept what each record was written as (`resources.catalog.record_digests`)."""

    def expect(self, record: str, sha256: str) -> int: ...

    def settle(self, record: str, number: int) -> None: ...

    def of(self, record: str) -> Set[str]: ...

    def of_asset(self, asset: str) -> dict[str, set[str]]: ...


class Records:
    """Saves and loads records below a folder. Writes are atomic; the last one counts.

    Some show a row (the rendered example of a plan, wrong answers), so with `keys` all are sealed at rest. A path in a
    record is written by the root of `paths` that it lies under (by default the folder beside this one), and is
    absolute again when it is loaded.

    With `digests` each record is held to what it was written as, whoever reads it: an edit by hand, a file of another
    partition or an earlier state put in its place raise RecordChanged.
    """

    def __init__(
        self,
        root: Path | str,
        keys: Keyring = NO_KEYS,
        paths: StoredPaths | None = None,
        digests: Digests | None = None,
    ) -> None:
        self.root = Path(root)
        self.keys = keys
        self.paths = paths or StoredPaths(self.root.absolute().parent)
        self.digests = digests

    def path(self, record: type[Record], partition: str) -> Path:
        # A cell's key joins two keys with "|", which some file systems refuse.
        parts = [check_key(part) for part in partition.split("|")]
        return self.root.joinpath(record.asset, *parts[:-1], f"{parts[-1]}.json")

    def save(self, partition: str, record: Record) -> Path:
        path = self.path(type(record), partition)
        data = record.model_dump_json(indent=1, context={PATHS: self.paths}).encode()
        if self.digests is None:
            files.write_bytes(path, self.keys.seal(data), mode=0o600)
            return path
        # One after the other: of two that write the same record, the digest that stays is that of the file that stays.
        with files.locked(self.root.with_name(f".{self.root.name}.lock")):
            # Killed in between, the record is what it was or what it becomes, and both are known.
            number = self.digests.expect(self._name(path), hashlib.sha256(data).hexdigest())
            files.write_bytes(path, self.keys.seal(data), mode=0o600)
            self.digests.settle(self._name(path), number)
        return path

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).with_suffix("").as_posix()

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

    def readable(self, record: type[R], partition: str) -> R | None:
        """The same, and None too where what is there cannot be read: for whoever has it made anew then, or goes on with
        others for whom it is no matter."""
        try:
            return self.find(record, partition)
        except (ValueError, OSError, EncryptionError) as error:
            log.warning("%s of %s is taken for missing: %s", record.asset, partition, error)
            return None

    def all(self, record: type[R]) -> list[R]:
        """Every record of an asset, the one written last first."""
        paths = sorted((self.root / record.asset).rglob("[!.]*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
        known = self.digests.of_asset(record.asset) if self.digests is not None else {}
        return [self._read(record, path, known.get(self._name(path), frozenset())) for path in paths]

    def _read(self, record: type[R], path: Path, known: Set[str] | None = None) -> R:
        """The record in a file; `known` are its digests, where they were asked for already."""
        data = self.keys.open(path.read_bytes(), path)
        for _attempt in range(_READINGS):
            known = self._known(path) if known is None else known
            # Records of an earlier release have no digest, and are taken as they are.
            if not known or hashlib.sha256(data).hexdigest() in known:
                return record.model_validate_json(data, context={PATHS: self.paths})
            # It may have been written between the two readings.
            data, known = self.keys.open(path.read_bytes(), path), None
        asset, _, partition = self._name(path).partition("/")
        raise RecordChanged(
            f"the record of {asset} for {partition.replace('/', '|')} is not what was written: {path} was changed, or "
            f"exchanged, since. Materialise {asset} of it again, or restore the file from a backup"
        )

    def _known(self, path: Path) -> Set[str]:
        return self.digests.of(self._name(path)) if self.digests is not None else frozenset()
