"""Takes a user's raw files into the platform: copied, fingerprinted and registered as one immutable version."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from llmops_assets.specs.base import SpecError, SpecFault
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import Policy
from resources import pointers
from resources.artifacts import Artifacts
from resources.catalog import Catalog, Conflict

GENERATED = "generated"
"""Folder below the artifacts of the rows that a model wrote, a folder each version."""


def rows_folder(spec: DatasetSpec) -> tuple[str, str]:
    """Where the raw rows of a version lie below the artifacts: as registered, or as a model wrote them."""
    return (GENERATED if spec.generation else "uploads", spec.key)


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those in the folders named; raises SpecError with every path that cannot be read."""
    found: list[Path] = []
    faults = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not inside:
                faults.append(SpecFault("files", f"the folder {path} holds no files"))
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            faults.append(SpecFault("files", f"there is no file {path}", "Check the path"))
    by_name: dict[str, Path] = {}
    for path in found:
        if (other := by_name.setdefault(path.name, path)) != path:
            faults.append(SpecFault("files", f"{other} and {path} have the same name", "Rename one of them"))
    if faults:
        raise SpecError(faults)
    return found


def register(
    spec: DatasetSpec, paths: Sequence[Path], *, artifacts: Artifacts, catalog: Catalog, policy: Policy, actor: str
) -> bool:
    """Copy `paths` below the artifact root and register them as `spec`; True when the version is new.

    Nothing is registered unless every byte was copied. The same files under the same version are accepted again, and
    their ingestion is asked for again; other files raise `Conflict`.
    """
    if pointers.find(catalog, spec.name, spec.version) not in (None, spec.version) or spec.version == pointers.CURRENT:
        raise Conflict(f"{spec.key} is a tag: take another name for the version")
    files = find_files(paths)
    size = sum(path.stat().st_size for path in files)
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
    uploads = artifacts.path("uploads")
    uploads.mkdir(parents=True, exist_ok=True)
    target = artifacts.path("uploads", spec.key)
    staged = Path(tempfile.mkdtemp(dir=uploads, prefix=f".{spec.key}."))
    try:
        digest = hashlib.sha256()
        for path in sorted(files, key=lambda p: p.name):
            with open(path, "rb") as source, open(staged / path.name, "wb") as copy:
                digest.update(f"{path.name}\0{artifacts.keys.copy_sealed(source, copy)}\n".encode())
        new = catalog.register_dataset(spec, digest.hexdigest(), actor)
        if not target.exists():
            staged.chmod(0o755)
            staged.rename(target)
        return new
    finally:
        shutil.rmtree(staged, ignore_errors=True)
