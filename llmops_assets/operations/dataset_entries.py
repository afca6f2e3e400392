"""Dataset versions that are entered by name first and get their files later, and what is known of each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from llmops_assets.operations.access import authorise
from llmops_assets.operations.datasets import Registered, register_dataset
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.graph import DATASET
from llmops_assets.operations.locations import checked_location
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.specs.base import REF_PATTERN, SpecError, faults_of
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.names import plain_ref
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound

if TYPE_CHECKING:
    from resources.catalog import Dataset, DatasetDraft

State = Literal["awaiting_files", "ingesting", "ready", "blocked", "failed", "archived", "erased"]
WAITS = "no file was uploaded yet"


@dataclass(frozen=True)
class Version:
    """One dataset version as a page shows it: `detail` is the reason for its state; figures are None until known."""

    key: str
    name: str
    version: str
    type: str
    owner: str
    description: str
    state: State
    detail: str
    created_at: datetime
    rows: int | None = None
    quarantined: int | None = None
    splits: dict[str, int] | None = None


def enter_dataset(wiring: Wiring, actor: str, fields: Mapping[str, Any]) -> Version:
    """Enter a dataset version that gets its files later.

    `fields` are those of a DatasetSpec but for its files. Raises SpecError for what no files could mend, Conflict where
    the version is registered already.
    """
    authorise(wiring, actor, "dataset.register")
    spec = _spec(fields, ["its-files"])
    if any(entry.key == spec.key for entry in wiring.catalog.datasets(spec.name)):
        raise Conflict(f"{spec.key} is registered already: a version never changes; enter another version")
    kept = {name: value for name, value in fields.items() if value is not None}
    reason = WAITS
    if uri := fields.get("storage_uri"):
        reason += f", and {uri} was not read: upload the files, or register them from there"
    return _of_draft(wiring.catalog.drafts.enter_dataset(kept, reason, actor))


def add_files(wiring: Wiring, actor: str, key: str, folder: Path) -> Registered:
    """Register the files in `folder`, which were uploaded, as an entered dataset version and ask for its ingestion.

    Raises NotFound for a version that was not entered, Conflict for other files under a registered one.
    """
    authorise(wiring, actor, "dataset.register")
    fields = _entered(wiring, key)
    spec = _spec(fields, sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    done = register_dataset(wiring, actor, spec, [str(folder)])
    wiring.catalog.drafts.close_dataset(key, actor)
    return done


def register_stored(wiring: Wiring, actor: str, key: str, allowed: Sequence[Path] | None) -> Registered:
    """Register an entered dataset version from its storage_uri. Raises Refused where it names what is not inside one of
    `allowed`; None allows any."""
    authorise(wiring, actor, "dataset.register")
    fields = _entered(wiring, key)
    uri = fields.get("storage_uri")
    if not uri:
        raise Refused(f"{key} was entered without a storage_uri: upload its files")
    source = checked_location(str(uri), allowed)
    spec = _spec(fields, [source])
    done = register_dataset(wiring, actor, spec, [source])
    wiring.catalog.drafts.close_dataset(key, actor)
    return done


def split(wiring: Wiring, actor: str, ref: str, shares: tuple[float, float, float]) -> tuple[Version, bool]:
    """A version with its splits in these shares, and whether they are there already.

    An entry without files takes the shares. Raises Refused for a registered version that is split otherwise.
    """
    authorise(wiring, actor, "dataset.register")
    found = version(wiring, find_version(wiring, ref))
    if found.state == "awaiting_files":
        fields = dict(wiring.catalog.drafts.dataset(found.key).fields)
        fields["split"] = {**(fields.get("split") or {}), "ratios": list(shares)}
        return enter_dataset(wiring, actor, fields), False
    own = wiring.catalog.dataset_entry(found.key).spec.split.ratios
    if any(abs(one - other) > 1e-9 for one, other in zip(own, shares, strict=True)):
        if any(share < 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise Refused(f"{list(shares)} should be three shares from 0 to 1 that add up to 1")
        there, wanted = (" / ".join(f"{share:g}" for share in ratios) for ratios in (own, shares))
        raise Refused(
            f"{found.key} is split {there}, and a version never changes: enter its files as another version, with "
            f"split.ratios {wanted}"
        )
    return found, found.splits is not None


def find_version(wiring: Wiring, ref: str) -> str:
    """The key of the version that a reference means: ``name@version``, ``name@tag`` or ``name-version``.

    ``v1.0`` and ``1.0`` are the same version. Raises NotFound, or Conflict where it may be several.
    """
    from resources.catalog.pointers import resolve

    known = {entry.key for entry in wiring.catalog.datasets()} | {d.key for d in wiring.catalog.drafts.datasets()}
    if ref in known:
        return ref
    alike = sorted(key for key in known if plain_ref(key) == plain_ref(ref))
    if len(alike) > 1:
        raise Conflict(f"{ref!r} may be any of {', '.join(alike)}: name one of them")
    if alike:
        return alike[0]
    if re.fullmatch(REF_PATTERN, ref):
        return resolve(wiring.catalog, ref)
    names = sorted(known)[:10]
    raise NotFound(f"there is no dataset version {ref!r}; known are: {', '.join(names) or 'none yet'}")


def list_versions(wiring: Wiring) -> list[Version]:
    """All versions, those that wait for their files too, newest first."""
    found = [_of_draft(draft) for draft in wiring.catalog.drafts.datasets()]
    found += [_of_entry(wiring, entry) for entry in wiring.catalog.datasets()]
    return sorted(found, key=lambda one: one.created_at, reverse=True)


def versions_page(wiring: Wiring, start: int, count: int, name: str | None = None) -> tuple[list[Version], int]:
    """`count` versions from `start` on, and how many there are (of a dataset): those that wait for their files come
    first, then the newest. Only what is on the page is looked into."""
    drafts = [draft for draft in wiring.catalog.drafts.datasets() if name in (None, draft.name)]
    found = [_of_draft(draft) for draft in drafts[start : start + count]]
    entries, registered = wiring.catalog.datasets_page(max(0, start - len(drafts)), count - len(found), name)
    return [*found, *(_of_entry(wiring, entry) for entry in entries)], len(drafts) + registered


def version(wiring: Wiring, key: str) -> Version:
    """One version; raises NotFound."""
    try:
        return _of_entry(wiring, wiring.catalog.dataset_entry(key))
    except NotFound:
        for draft in wiring.catalog.drafts.datasets():
            if draft.key == key:
                return _of_draft(draft)
        raise


def reports(wiring: Wiring, key: str) -> dict[str, Any]:
    """What each step of the graph left behind of a version, by asset; None of a step that was not made yet."""
    entry = wiring.catalog.dataset_entry(key)
    kinds = (DatasetRecord, QualityRecord, CleanRecord, SplitsRecord)
    found = {kind.asset: wiring.records.find(kind, key) if entry.status != "erased" else None for kind in kinds}
    return {asset: record.model_dump(mode="json") if record else None for asset, record in found.items()}


def checks(wiring: Wiring, key: str) -> list[dict[str, Any]]:
    """The newest evaluation of every check of a version: asset, name, whether it passed, and in words."""
    return [
        {"asset": one.asset, "check": one.name, "passed": one.passed, "detail": one.description}
        for one in wiring.run_log.checks(key, DATASET)
    ]


def _entered(wiring: Wiring, key: str) -> dict[str, Any]:
    for draft in wiring.catalog.drafts.datasets():
        if draft.key == key:
            return dict(draft.fields)
    # The same files again only ask for the ingestion again; others are refused, because a version never changes.
    return wiring.catalog.dataset_entry(key).spec.model_dump(mode="json", exclude={"files", "mapping"})


def _spec(fields: Mapping[str, Any], files: list[str]) -> DatasetSpec:
    try:
        return DatasetSpec.model_validate({**fields, "files": files})
    except ValidationError as error:
        raise SpecError(faults_of(error, DatasetSpec)) from error


def _of_draft(draft: "DatasetDraft") -> Version:
    fields = draft.fields
    return Version(
        key=draft.key,
        name=draft.name,
        version=draft.version,
        state="awaiting_files",
        detail=draft.reason,
        type=str(fields.get("type") or ""),
        owner=str(fields.get("owner") or ""),
        description=str(fields.get("description") or ""),
        created_at=draft.created_at,
    )


def _of_entry(wiring: Wiring, entry: "Dataset") -> Version:
    state, detail, rows, quarantined, splits = _state(wiring, entry)
    return Version(
        key=entry.key,
        name=entry.spec.name,
        version=entry.spec.version,
        type=entry.spec.type,
        owner=entry.spec.owner,
        description=entry.spec.description,
        state=state,
        detail=detail,
        created_at=entry.created_at,
        rows=rows,
        quarantined=quarantined,
        splits=splits,
    )


def _state(wiring: Wiring, entry: "Dataset") -> tuple[State, str, int | None, int | None, dict[str, int] | None]:
    if entry.status == "erased":
        return "erased", "erased on a person's request", None, None, None
    record = wiring.records.find(DatasetRecord, entry.key)
    made = wiring.records.find(SplitsRecord, entry.key)
    rows, quarantined = (record.rows, record.quarantined) if record else (None, None)
    splits = made.rows if made else None
    if entry.status == "archived":
        return "archived", "no longer used", rows, quarantined, splits
    if made is not None:
        failed = wiring.run_log.failed_check(entry.key, DATASET)
        if failed is not None:
            return "blocked", f"{failed.asset}.{failed.name}: {failed.description}", rows, quarantined, splits
        return "ready", "", rows, quarantined, splits
    intent = wiring.catalog.intents.newest("ingest", entry.key)
    if intent is not None and intent.reason:
        return "failed", intent.reason, rows, quarantined, splits
    return "ingesting", "its files are being read, reported on, cleaned and split", rows, quarantined, splits
