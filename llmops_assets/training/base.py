"""Finds the model that a training starts from, and makes sure that it is what it says and may be used."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import BaseModelRecord, MergedModelRecord
from llmops_assets.specs.base_ref import BaseRef, parse_base_ref
from llmops_assets.specs.families import verify_family
from llmops_assets.specs.job_types import JobType
from llmops_assets.specs.policy import Policy
from llmops_assets.training.inspection import ModelFault, require_whole
from llmops_assets.training.memory import Shape
from resources import content


class BaseModelError(ValueError):
    """The base model is absent, not approved, or not what the spec says; the message says what to do."""


class Approved(Protocol):
    """What the catalog knows of a registered base model."""

    ref: str
    path: str
    state: str
    content_hash: str | None


@dataclass(frozen=True)
class Sources:
    """Where base models come from: three look-ups, each raising LookupError (or a kind of it) for what is not there."""

    registered: Callable[[str], Approved]
    merged: Callable[[str], MergedModelRecord]
    model: Callable[[str], RegisteredModelRecord]
    files: Callable[[str], Mapping[str, str]] = lambda ref: {}
    """The files of a registered base with their hashes, as they were registered; none where nobody noted them."""


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of the model in `folder`; raises BaseModelError when there is none."""
    path = folder / "config.json"
    if not path.exists():
        raise BaseModelError(f"{folder} is no model folder: it has no config.json")
    return json.loads(path.read_text(encoding="utf-8"))


def hub_folder(name: str, cache: Path | None = None) -> Path:
    """The folder of hub model `name` in the local Hugging Face cache; nothing is downloaded.

    Raises BaseModelError when it was never downloaded.
    """
    if cache is None:
        home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
        cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    repository = cache / f"models--{name.replace('/', '--')}"
    head = repository / "refs" / "main"
    snapshot = repository / "snapshots" / head.read_text().strip() if head.exists() else None
    if snapshot is None or not (snapshot / "config.json").exists():
        raise BaseModelError(
            f"{name!r} is neither a local folder nor in the Hugging Face cache {cache}: "
            f"download it first (`hf download {name}`), or give the path of its folder"
        )
    return snapshot


def model_folder(name: str) -> Path:
    """The folder that `hf:name` means: a local path when there is one, else a model of the hub's cache."""
    local = Path(name).expanduser()
    if local.is_dir():
        return local.absolute()
    if name.startswith((".", "/", "~")):
        raise BaseModelError(f"there is no folder {name}")
    return hub_folder(name)


def template_date(base: BaseModelRecord | None, before: str | None) -> str | None:
    """What the chat template of a base is told when it asks for today, ISO 8601; None where it does not ask.

    `before` is the day of an earlier plan of the same cell, which is kept.
    """
    if base is None:
        return None
    folder, config = Path(base.path), Path(base.path) / "tokenizer_config.json"
    named = [path.read_text(encoding="utf-8") for path in folder.glob("*chat_template*") if path.is_file()]
    text = "\n".join([*named, config.read_text(encoding="utf-8") if config.is_file() else ""])
    # One that was trained here asks no more: its day was written into the template as a macro.
    asks = "strftime_now" in text and not re.search(r"macro\s+strftime_now", text)
    return (before or datetime.now(UTC).date().isoformat()) if asks else None


def resolve(ref: str, *, family: str, job_type: JobType, policy: Policy, sources: Sources) -> BaseModelRecord:
    """The base model that `ref` names, verified by its own config.json and hashed.

    `hf:…` and plain names must be registered and approved, and unchanged since; what this installation trained itself
    needs no approval. Raises BaseModelError or, when it is of another family, SpecError.
    """
    try:
        parsed = parse_base_ref(ref)
        folder, approved_hash = locate(ref, parsed, sources)
    except LookupError as error:
        advice = f". Register and approve it: llmops model register {ref} --family {family}" if ref[:3] == "hf:" else ""
        raise BaseModelError(f"base model {ref!r} is not there: {error}{advice}") from error
    except FileNotFoundError as error:
        raise BaseModelError(
            f"base model {ref!r} is not there: {error} (an earlier training has to finish before this one)"
        ) from error
    config = read_config(folder)
    verify_family(policy.families, family, config, job_type)
    files = verify_unchanged(ref, folder, approved_hash, sources)
    return record_of(ref, family, folder, config, approved_hash, files)


def verify_unchanged(
    ref: str, folder: Path, approved_hash: str | None, sources: Sources, kind: str = "base"
) -> dict[str, str]:
    """The listing of the model in `folder`; BaseModelError where it is not the one that was laid down under `ref`."""
    known, files = sources.files(ref), content.listing(folder)
    if approved_hash and (found := content.difference(folder, approved_hash, known, files)) is not None:
        raise BaseModelError(
            f"{kind} model {ref!r} at {folder} was changed after it was approved: {found} what it was then, with the "
            f"content {approved_hash}. Put it back, or register and approve it again"
        )
    return files


def inspect_base(ref: str, family: str, policy: Policy) -> BaseModelRecord:
    """The model that `hf:…` names, to be registered: its folder, hash and size, its family verified by its own config.

    Raises BaseModelError when it is not there or not whole, SpecError when it is not of `family`.
    """
    parsed = parse_base_ref(ref)
    if parsed.source != "hf":
        raise BaseModelError(f"{ref!r} cannot be registered: write hf: and a folder, or hf: and a hub id")
    folder = model_folder(parsed.name)
    config = read_config(folder)
    named = [
        str(name).replace("ForSequenceClassification", "ForCausalLM") for name in config.get("architectures") or []
    ]
    job_types = policy.families[family].job_types if family in policy.families else ["SFT"]
    # A reward model is of the family whose body it has; encoders may be of an architecture for them alone.
    job = "EMBEDDING" if "EMBEDDING" in job_types else job_types[0]
    verify_family(policy.families, family, {**config, "architectures": named}, job)
    files = content.listing(folder)
    try:
        found = record_of(ref, family, folder, config, None, files)
        require_whole(folder, ref)
    except (FileNotFoundError, ModelFault) as error:
        raise BaseModelError(str(error)) from error
    return found


def record_of(
    ref: str, family: str, folder: Path, config: dict[str, Any], digest: str | None, files: dict[str, str]
) -> BaseModelRecord:
    """The record of a base model in `folder` with these files, which goes by the hash `digest` where one was laid
    down."""
    parameters = Shape.from_config(config).parameters if "intermediate_size" in config else None
    return BaseModelRecord(
        ref=ref,
        family=family,
        path=str(folder),
        # What an earlier release hashed keeps its hash: it is what lineage and erasures know the model by.
        content_hash=digest or content.hash_of_model(folder, files),
        files=files,
        parameters=parameters,
    )


def locate(ref: str, parsed: BaseRef, sources: Sources) -> tuple[Path, str | None]:
    """Folder of the model, and the hash that it must have if one was laid down."""
    if parsed.source == "training":
        record = sources.merged(parsed.training_key)
        return _present(ref, Path(record.path)), record.content_hash
    if parsed.source == "registry":
        model = sources.model(ref)
        return _present(ref, Path(model.path)), model.content_hash
    try:
        entry = sources.registered(ref)
    except LookupError as error:
        raise BaseModelError(
            f"base model {ref!r} is not registered: register it (`llmops model register`) and have it approved"
        ) from error
    if entry.state != "approved":
        raise BaseModelError(f"base model {ref!r} is {entry.state}, not approved: have it approved first")
    name = entry.path.removeprefix("hf:")
    return model_folder(name), entry.content_hash


def _present(ref: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise BaseModelError(f"the files of base model {ref!r} are gone from {folder}: train or restore it")
    return folder
