"""Takes a user's raw files into the platform: copied, fingerprinted and registered as one immutable version."""

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from upath import UPath

from llmops_assets.datasets.reading import cards, hub
from llmops_assets.datasets.reading.opening import LFS_REASON
from llmops_assets.datasets.reading.readers import all_files
from llmops_assets.specs.base import SpecError, SpecFault
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import Policy
from resources.artifacts import Artifacts
from resources.catalog import Catalog, Conflict, pointers

Files = Sequence[tuple[str, UPath]]
"""Names, and where the files lie."""

_LOCK_SECONDS = 600.0
"""How long the same version being registered elsewhere is waited for: as long as copying its files takes."""

LEFT_OUT = ".left_out.json"
"""File beside the registered ones with what of the folders given was no data; hidden, so nobody takes it for data."""

GENERATED = "generated"
"""Folder below the artifacts of the rows that a model wrote, a folder each version."""


def rows_folder(spec: DatasetSpec) -> tuple[str, str]:
    """Where the raw rows of a version lie below the artifacts: as registered, or as a model wrote them."""
    return (GENERATED if spec.generation else "uploads", spec.key)


def find_files(paths: Sequence[str | os.PathLike[str]], documents: bool = False) -> hub.Folder:
    """The files of data named (local paths, folders or fsspec URLs) and those in the folders named, each with the name
    that it gets: its own, or its path inside of the folder; and what else is in those folders, with the reason why it
    is no data. Raises SpecError with everything that cannot be read, or that was named and is no data.

    A symbolic link inside a folder that leads out of it is refused: what it points to was not handed over.
    `documents`: texts that a model writes rows about.
    """
    found: list[tuple[str, UPath]] = []
    left_out: dict[str, str] = {}
    splits: dict[str, list[str]] = {}
    notes: list[str] = []
    faults = []
    for given in paths:
        try:
            path = UPath(given)
            if path.is_dir():
                inside = all_files(path)
                outside = [
                    file for name, file in inside if not hub.not_data(name, documents) and not _is_inside(file, path)
                ]
                faults += [_outside(file, path) for file in outside]
                folder = hub.sort_out([one for one in inside if one[1] not in outside], documents)
                if not folder.data and not outside:
                    why = "; ".join(folder.words()) or "it is empty"
                    faults.append(SpecFault("files", f"the folder {path} holds no files of data ({why})"))
                found += folder.data
                left_out |= folder.left_out
                notes += folder.notes
                for split, names in folder.splits.items():
                    splits[split] = [*splits.get(split, []), *names]
            elif path.is_file():
                reason = hub.not_data(path.name, documents) or (LFS_REASON if hub.is_pointer(path) else None)
                if reason:
                    faults.append(SpecFault("files", f"{path} is no data: {reason}", _advice(reason)))
                found.append((path.name, path))
            else:
                faults.append(SpecFault("files", f"there is no file {path}", "Check the path"))
        except cards.SeveralConfigurations as error:
            faults.append(
                SpecFault("files", f"the folder {given} is several datasets: {error}", "Name the files of one of them")
            )
        except (OSError, ValueError, ImportError) as error:
            faults.append(SpecFault("files", f"{given} cannot be read: {error}", "Check the address and your access"))
    by_name: dict[str, UPath] = {}
    for name, path in found:
        if (other := by_name.setdefault(name, path)) != path:
            faults.append(SpecFault("files", f"{other} and {path} have the same name", "Rename one of them"))
    if faults:
        raise SpecError(faults)
    named = sorted(by_name.keys() - {name for names in splits.values() for name in names})
    for split, names in hub.splits_of(named).items():
        splits[split] = [*splits.get(split, []), *names]
    return hub.Folder(sorted(found), left_out, dict(sorted(splits.items())), tuple(notes))


def _advice(reason: str) -> str:
    if reason == LFS_REASON:
        return "Fetch the file itself with `git lfs pull`, and register that"
    return "Name the files that hold rows; rename this one where it holds rows after all"


def _is_inside(file: UPath, folder: UPath) -> bool:
    return not isinstance(file, Path) or file.resolve().is_relative_to(Path(folder).resolve())


def _outside(file: UPath, folder: UPath) -> SpecFault:
    return SpecFault(
        "files", f"{file} is a symbolic link that leads out of {folder}", "Copy the file there, or leave it out"
    )


def register(
    spec: DatasetSpec,
    paths: Sequence[str | os.PathLike[str]],
    *,
    artifacts: Artifacts,
    catalog: Catalog,
    policy: Policy,
    actor: str,
) -> bool:
    """Copy `paths` (local or URLs) below the artifact root and register them as `spec`; True when the version is new.

    Nothing is registered unless every byte was copied. The same files under the same version are accepted again, and
    their ingestion is asked for again; other files raise `Conflict`.
    """
    if pointers.find(catalog, spec.name, spec.version) not in (None, spec.version) or spec.version == pointers.CURRENT:
        raise Conflict(f"{spec.key} is a tag: take another name for the version")
    found = find_files(paths, documents=spec.generation is not None)
    files = found.data
    size = sum(path.stat().st_size for _, path in files)
    if size > policy.limits.max_upload_bytes:
        raise SpecError(
            [
                SpecFault(
                    "files",
                    f"{size:,} bytes are more than the {policy.limits.max_upload_bytes:,} of limits.max_upload_bytes",
                    "Split the dataset into several versions, or raise the limit",
                )
            ]
        )
    keep = _keep_here if artifacts.is_local else _keep_remotely
    with catalog.database.lock(f"dataset {spec.key}", timeout=_LOCK_SECONDS):
        return keep(spec, found, artifacts, catalog, actor)


def left_out_of(artifacts: Artifacts, spec: DatasetSpec) -> dict[str, str]:
    """What of the folders given was left out when a version was registered: name and reason."""
    path = artifacts.upath("uploads", spec.key, LEFT_OUT)
    return json.loads(artifacts.keys.open(path.read_bytes(), LEFT_OUT)) if path.exists() else {}


def _write_left_out(folder: UPath, found: hub.Folder, artifacts: Artifacts) -> None:
    if found.left_out:
        with (folder / LEFT_OUT).open("wb") as copy:
            artifacts.keys.copy_sealed(io.BytesIO(json.dumps(found.left_out, ensure_ascii=False).encode()), copy)


def _keep_here(spec: DatasetSpec, found: hub.Folder, artifacts: Artifacts, catalog: Catalog, actor: str) -> bool:
    """Copy beside the uploads, put the copy in its place by one renaming, and register.

    In this order, because what is registered is ingested: cut off in between, there are files that nobody registered,
    and the next registering puts its own in their place.
    """
    uploads = artifacts.path("uploads")
    uploads.mkdir(parents=True, exist_ok=True)
    target = artifacts.path("uploads", spec.key)
    staged = Path(tempfile.mkdtemp(dir=uploads, prefix=f".{spec.key}."))
    try:
        digest = _copy(found.data, UPath(staged), artifacts)
        _write_left_out(UPath(staged), found, artifacts)
        staged.chmod(0o755)
        if not is_registered(spec, catalog):
            shutil.rmtree(target, ignore_errors=True)
            staged.rename(target)
            return catalog.register_dataset(spec, digest, actor)
        # Other files are refused, and what is there stays.
        new = catalog.register_dataset(spec, digest, actor)
        if not target.exists():
            staged.rename(target)
        return new
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _keep_remotely(spec: DatasetSpec, found: hub.Folder, artifacts: Artifacts, catalog: Catalog, actor: str) -> bool:
    """Copy to an object store, where no folder can be renamed: what is there of a version that is not registered was
    left by a copying that was cut off, and gives way."""
    target = artifacts.upath("uploads", spec.key)
    files = found.data
    if is_registered(spec, catalog):
        # Other files are refused before anything of them is written.
        digest = _copy(files, None, artifacts)
        new = catalog.register_dataset(spec, digest, actor)
        if not target.exists():
            _copy(files, target, artifacts)
        return new
    if target.exists():
        target.fs.rm(target.path, recursive=True)
    digest = _copy(files, target, artifacts)
    _write_left_out(target, found, artifacts)
    return catalog.register_dataset(spec, digest, actor)


def is_registered(spec: DatasetSpec, catalog: Catalog) -> bool:
    """Whether there is a version of that name already."""
    return any(entry.key == spec.key for entry in catalog.datasets(spec.name))


def _copy(files: Files, folder: UPath | None, artifacts: Artifacts) -> str:
    """Copy files (sealed, where there is a key) into a folder, or nowhere; the digest of their names and contents."""
    digest = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as source, _written(folder, name) as copy:
            digest.update(f"{name}\0{artifacts.keys.copy_sealed(source, copy)}\n".encode())
    return digest.hexdigest()


def _written(folder: UPath | None, name: str) -> BinaryIO:
    if folder is None:
        return open(os.devnull, "wb")
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.open("wb")
