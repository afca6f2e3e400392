"""Models by a name and a version: base models that users enter, beside the versions that trainings registered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused, Withheld
from llmops_assets.operations.locations import local_path, refuse_outside
from llmops_assets.operations.models import approve, archive, promote, register_base
from llmops_assets.specs.names import plain_ref
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound

if TYPE_CHECKING:
    from resources.catalog import NamedModel
    from resources.tracking import ModelVersion

States = Literal["draft", "approved", "staging", "production", "archived"]
STATES: tuple[str, ...] = get_args(States)
HUB = "hf:"


@dataclass(frozen=True)
class Model:
    """One model as a page shows it. `ref` is what specs name it by: ``hf:…`` for a base model whose files are known,
    ``name@version`` for a registered version; None for an entry whose files were not found yet, and `reason` why."""

    id: str
    name: str
    version: str
    kind: Literal["base", "trained"]
    state: str
    family: str
    owner: str
    created_at: datetime
    ref: str | None
    reason: str = ""
    license: str | None = None
    storage_uri: str | None = None
    job_type: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def enter_model(
    wiring: Wiring,
    actor: str,
    *,
    name: str,
    version: str,
    storage_uri: str,
    family: str,
    license: str | None,
    owner: str,
    detail: Mapping[str, Any],
    allowed: Sequence[Path] | None,
) -> Model:
    """Enter a base model as a draft under a name and a version.

    Files that lie on this machine are looked at at once: those of another family, or of no whole model, are refused
    (Refused, SpecError). Others can be entered, and are looked at when the model is approved. `allowed` are the folders
    that a path may lie in; None allows any.
    """
    authorise(wiring, actor, "base.register")
    if family not in wiring.policy.families:
        raise Refused(f"model_family {family!r} is not allowed by the policy: {', '.join(wiring.policy.families)}")
    if any(one.name == name for one in wiring.tracking.models(name)):
        raise Conflict(f"{name} is the name of a trained model: enter the base model under another one")
    ref, reason = _base_ref(storage_uri, allowed)
    if ref is not None:
        ref = _register(wiring, actor, ref, family, license)
    entry = wiring.catalog.drafts.enter_model(
        name,
        version,
        storage_uri=storage_uri,
        family=family,
        license=license,
        owner=owner,
        detail=detail,
        base_ref=ref,
        reason=reason,
        actor=actor,
    )
    if ref is not None and entry.base_ref != ref:
        entry = wiring.catalog.drafts.found_model(name, version, ref, actor)
    return _of_entry(wiring, entry)


def _base_ref(storage_uri: str, allowed: Sequence[Path] | None) -> tuple[str | None, str]:
    """How trainings name the files at a URI; None and the reason where they are not on this machine."""
    if storage_uri.startswith(HUB):
        named = storage_uri.removeprefix(HUB)
        # `hf:` names folders of this machine, too: whatever is one has to be one of those that are allowed.
        if named.startswith((".", "~")) or Path(named).is_absolute() or Path(named).exists():
            refuse_outside(Path(named).expanduser(), allowed)
        return HUB + storage_uri.removeprefix(HUB).lstrip("/") if "://" in storage_uri else storage_uri, ""
    path = local_path(storage_uri)
    if path is None:
        return None, f"the files at {storage_uri} are not on this machine: copy them to a folder, and enter that"
    if not path.is_absolute():
        raise Refused(f"storageUri {storage_uri!r} is no absolute path and no URI: write file:///… or hf:ORG/NAME")
    refuse_outside(path, allowed)
    return (f"{HUB}{path}", "") if path.is_dir() else (None, f"there is no folder {path} on this machine")


def set_status(wiring: Wiring, actor: str, ref: str, status: str, allowed: Sequence[Path] | None) -> Model:
    """Approve a model, take it out of use, or move a trained version to staging or production.

    Raises Withheld with every reason against it.
    """
    model = find_model(wiring, ref)
    if status not in ("approved", "archived", "staging", "production"):
        raise Refused(f"status {status!r}: a model becomes approved, staging, production or archived")
    if model.kind == "base" and status in ("staging", "production"):
        raise Refused(f"{model.id} is a base model: it is approved for trainings to start from, not served in {status}")
    target = model.ref or _look_again(wiring, actor, model, allowed)
    if status == "approved":
        approve(wiring, actor, target)
    elif status == "archived":
        archive(wiring, actor, target)
    else:
        promote(wiring, actor, target, status)
    return find_model(wiring, model.id)


def _look_again(wiring: Wiring, actor: str, model: Model, allowed: Sequence[Path] | None) -> str:
    """The base model of an entry whose files were not there when it was entered; raises Withheld while they are not."""
    ref, reason = _base_ref(model.storage_uri or "", allowed)
    if ref is None:
        raise Withheld(f"{model.id} cannot be approved: {reason}")
    found = _register(wiring, actor, ref, model.family, model.license)
    wiring.catalog.drafts.found_model(model.name, model.version, found, actor)
    return found


def _register(wiring: Wiring, actor: str, ref: str, family: str, license: str | None) -> str:
    from llmops_assets.training.base import BaseModelError

    try:
        return register_base(wiring, actor, ref, family=family, license=license).ref
    except BaseModelError as error:
        raise Refused(str(error)) from error


def find_model(wiring: Wiring, ref: str) -> Model:
    """The model that a reference means: ``name@version``, ``name@alias``, ``name-version``, ``name`` where there is
    one of it, or the ``hf:…`` or the hub id of a base model. Raises NotFound, or Conflict where it may be several."""
    models = list_models(wiring)
    known_as = [
        [model for model in models if ref == model.id],
        [model for model in models if ref in (model.ref, model.storage_uri) or f"{HUB}{ref}" == model.ref],
        [
            model
            for model in models
            if plain_ref(ref) in (plain_ref(f"{model.name}-{model.version}"), plain_ref(model.id))
        ],
    ]
    for found in known_as:
        if found:
            return _only(ref, found)
    if "@" in ref:
        from resources.tracking import UnknownModel

        try:
            return _of_version(wiring.tracking.version(ref))
        except (UnknownModel, ValueError):
            pass
    if found := [model for model in models if model.name == ref]:
        return _only(ref, found)
    known = ", ".join(model.id for model in models[:10])
    raise NotFound(f"there is no model {ref!r}; known are: {known or 'none yet'}")


def _only(ref: str, found: list[Model]) -> Model:
    if len({model.id for model in found}) > 1:
        raise Conflict(f"{ref!r} may be any of {', '.join(model.id for model in found)}: name one of them")
    return found[0]


def list_models(wiring: Wiring, status: str | None = None) -> list[Model]:
    """All models (in a state), newest first: entered base models, further registered ones, trained versions."""
    entries = [_of_entry(wiring, entry) for entry in wiring.catalog.drafts.models()]
    named = {model.ref for model in entries}
    bases = [_of_base(base) for base in wiring.catalog.base_models() if base.ref not in named]
    found = [*entries, *bases, *(_of_version(version) for version in wiring.tracking.models())]
    wanted = [model for model in found if status in (None, model.state)]
    return sorted(wanted, key=lambda model: model.created_at, reverse=True)


def _of_entry(wiring: Wiring, entry: "NamedModel") -> Model:
    state, reason = "draft", entry.reason
    if entry.base_ref is not None:
        state = wiring.catalog.base_model(entry.base_ref).state
    return Model(
        id=entry.key,
        name=entry.name,
        version=entry.version,
        kind="base",
        state=state,
        family=entry.family,
        owner=entry.owner,
        created_at=entry.created_at,
        ref=entry.base_ref,
        reason=reason,
        license=entry.license,
        storage_uri=entry.storage_uri,
        detail=entry.detail,
    )


def _of_base(base: Any) -> Model:
    return Model(
        id=base.ref,
        name=base.ref,
        version="",
        kind="base",
        state=base.state,
        family=base.family,
        owner="",
        created_at=base.created_at,
        ref=base.ref,
        license=base.license,
        storage_uri=base.ref,
    )


def _of_version(version: "ModelVersion") -> Model:
    tags = version.tags
    return Model(
        id=version.ref,
        name=version.name,
        version=str(version.version),
        kind="trained",
        state=version.state,
        family=tags.get("family", ""),
        owner=tags.get("owner", ""),
        created_at=version.created_at,
        ref=version.ref,
        job_type=tags.get("job_type"),
        detail={"aliases": list(version.aliases), **{k: tags[k] for k in ("dataset", "recipe") if k in tags}},
    )


def trained_version(wiring: Wiring, ref: str) -> str:
    """``name@version`` of the trained model that a reference means; raises NotFound for a base model."""
    model = find_model(wiring, ref)
    if model.kind == "base":
        raise NotFound(f"{model.id} is a base model: cards and dossiers are written of what is trained here")
    return model.id


def card(wiring: Wiring, ref: str) -> str:
    """The model card of a trained version, Markdown; raises NotFound for what has none."""
    version = trained_version(wiring, ref)
    path = wiring.tracking.model(version).card
    if not path or not Path(path).is_file():
        raise NotFound(f"{version} has no model card")
    return Path(path).read_text(encoding="utf-8")
