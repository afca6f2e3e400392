"""What is known of the rows of a dataset version: its report, what was refused, and how two versions differ."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.operations.dataset_entries import find_version
from llmops_assets.operations.errors import Refused, Withheld
from llmops_assets.operations.upload_preview import cells
from llmops_assets.records.datasets import QualityRecord
from llmops_assets.wiring import Wiring
from resources.catalog import NotFound

if TYPE_CHECKING:
    from llmops_assets.datasets.versions.diff import Diff

STEPS = ("dataset", "clean", "train", "validation", "test")


def quality_report(wiring: Wiring, ref: str) -> str:
    """The report on a version as one HTML file with its pictures; raises NotFound before it was made."""
    key = find_version(wiring, ref)
    record = _readable(wiring, key)
    if record is None or not record.html or not Path(record.html).is_file():
        raise NotFound(f"{key} has no report yet: its files are still being read, or could not be")
    return wiring.keys.open(Path(record.html).read_bytes(), Path(record.html)).decode("utf-8")


def _readable(wiring: Wiring, key: str) -> QualityRecord | None:
    if wiring.catalog.dataset_entry(key).status == "erased":
        raise Refused(f"{key} was erased on a person's request: nothing of its rows is shown")
    return wiring.records.find(QualityRecord, key)


@dataclass(frozen=True)
class Quarantine:
    """Rows that were refused, from `start` on: file, line, field, reason and raw, masked; `total` of them."""

    rows: list[dict[str, Any]]
    start: int
    total: int


def quarantine(wiring: Wiring, ref: str, start: int, count: int) -> Quarantine:
    """Up to `count` rows of a version that were refused; raises Withheld before its files were read."""
    from llmops_assets.datasets.reading.quarantine import refused

    key = find_version(wiring, ref)
    _readable(wiring, key)
    try:
        lines = refused(wiring.store, wiring.records, key)
    except FileNotFoundError as error:
        raise Withheld(f"the files of {key} were not read yet: {error}") from error
    shown = cells(wiring)
    rows = [
        {name: shown(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in lines.slice(start, count).to_dicts()
    ]
    return Quarantine(rows, start, lines.height)


@dataclass(frozen=True)
class Compared:
    """Two versions row by row; the texts of `examples` are masked."""

    before: str
    after: str
    step: str
    counts: dict[str, int]
    rows: tuple[int, int]
    new_bytes: int
    examples: list[dict[str, Any]]


def compare_versions(wiring: Wiring, before: str, after: str, step: str = "clean") -> Compared:
    """What was added, removed and changed between two versions. Raises NotFound, Withheld where one of the two has no
    such rows yet, Refused where they are not of one type."""
    from llmops_assets.datasets.versions import diff as compare
    from llmops_assets.datasets.versions.history import manifest_of

    if step not in STEPS:
        raise Refused(f"step {step!r}: choose one of {', '.join(STEPS)}")
    keys = [find_version(wiring, ref) for ref in (before, after)]
    for key in keys:
        _readable(wiring, key)
    try:
        left, right = (manifest_of(wiring.store, wiring.records, key, step) for key in keys)
    except FileNotFoundError as error:
        raise Withheld(f"one of the two has no {step} rows yet: {error}") from error
    try:
        found = compare.diff(wiring.store, left, right, limit=5)
    except ValueError as error:
        raise Refused(str(error)) from error
    return Compared(
        keys[0], keys[1], step, _counts(found), (left.rows, right.rows), found.new_bytes, _masked(wiring, found)
    )


def _counts(found: "Diff") -> dict[str, int]:
    names = ("added", "removed", "changed", "relabelled", "moved", "unchanged")
    return {name: getattr(found, name) for name in names}


def _masked(wiring: Wiring, found: "Diff") -> list[dict[str, Any]]:
    shown = cells(wiring)
    return [
        {
            **example,
            "fields": {
                path: {side: None if text is None else shown(text) for side, text in texts.items()}
                for path, texts in example["fields"].items()
            },
        }
        for example in found.examples
    ]
