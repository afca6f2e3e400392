"""Models: registering a base model, a version's way to production, and who took which weights."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Failed, Refused, Withheld
from llmops_assets.operations.four_eyes import refuse_own
from llmops_assets.operations.running_tests import end_for
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from llmops_assets.records.registry import ParityRecord
    from llmops_assets.records.training import BaseModelRecord
    from llmops_assets.registry.lifecycle import Action
    from resources.catalog import BaseModelEntry
    from resources.tracking import ModelVersion

Order = Literal["created_at", "updated_at", "name", "version", "state"]
ORDERS: "dict[Order, Callable[[ModelVersion], Any]]" = {
    "created_at": lambda v: (v.created_at, v.name, v.version),
    "updated_at": lambda v: (v.updated_at, v.name, v.version),
    "name": lambda v: (v.name, v.version),
    "version": lambda v: (v.version, v.name),
    "state": lambda v: (v.state, v.created_at),
}
"""By what versions can be listed."""


@dataclass(frozen=True)
class Transition:
    """A step that was taken; `through` are the endpoints by whose deployment the alias moves once the model answers."""

    ref: str
    state: str
    by: str | None = None
    through: tuple[str, ...] = ()


def list_versions(
    wiring: Wiring,
    name: str | None = None,
    *,
    sort: str = "created_at",
    ascending: bool = False,
    state: str | None = None,
    limit: int | None = None,
) -> "list[ModelVersion]":
    """Registered versions (of `name`, in `state`), newest first unless told otherwise."""
    if sort not in ORDERS:
        raise Refused(f"--sort {sort}: choose one of {', '.join(ORDERS)}")
    versions = sorted(wiring.tracking.models(name), key=ORDERS[sort], reverse=not ascending)
    return [version for version in versions if state in (None, version.state)][:limit]


def register_base(wiring: Wiring, actor: str, ref: str, *, family: str, license: str | None) -> "BaseModelEntry":
    """Register a base model as a draft; raises BaseModelError when its config.json is not of that family."""
    from llmops_assets.training.base import inspect_base

    authorise(wiring, actor, "base.register")
    found = inspect_base(ref, family, wiring.policy)
    return wiring.catalog.register_base(
        ref,
        family=family,
        path=found.path,
        content_hash=_kept_hash(wiring, ref, found),
        license=license,
        files=found.files,
        actor=actor,
    )


def _kept_hash(wiring: Wiring, ref: str, found: "BaseModelRecord") -> str:
    """The content hash of a base; one that an earlier release registered keeps that release's while it is the same."""
    from resources.catalog import NotFound
    from resources.content import old_content_hash

    try:
        known = wiring.catalog.base_model(ref).content_hash
    except NotFound:
        return found.content_hash
    return known if known is not None and known == old_content_hash(found.files) else found.content_hash


def is_base(ref: str) -> bool:
    """Whether a reference names a base model rather than a registered version."""
    return ref.startswith("hf:") or "@" not in ref


def approve(wiring: Wiring, actor: str, ref: str) -> Transition:
    """Approve a version for staging and production, or a base model for trainings to start from."""
    if is_base(ref):
        authorise(wiring, actor, "base.approve")
        refuse_own(wiring, actor, "base.approve", ref)
        _verify_base(wiring, ref)
        entry = wiring.catalog.approve_base(ref, actor)
        return Transition(entry.ref, entry.state, entry.approved_by)
    return _transition(wiring, actor, "approve", ref)


def _verify_base(wiring: Wiring, ref: str) -> None:
    """Raise Withheld where a base's files are not those that were registered, which is what is approved."""
    from resources.content import ContentChanged, verify

    entry = wiring.catalog.base_model(ref)
    if entry.content_hash is None or not Path(entry.path).is_absolute():
        return
    advice = f"Put it back, or register it again: llmops model register {ref} --family {entry.family}"
    try:
        verify(entry.path, entry.content_hash, f"registered as {ref}", advice, wiring.catalog.base_files(ref))
    except ContentChanged as error:
        raise Withheld(str(error)) from error


def archive(wiring: Wiring, actor: str, ref: str) -> Transition:
    """Take a version, or a base model, out of use."""
    if is_base(ref):
        authorise(wiring, actor, "base.archive")
        entry = wiring.catalog.archive_base(ref, actor)
        return Transition(entry.ref, entry.state)
    return _transition(wiring, actor, "archive", ref)


def promote(wiring: Wiring, actor: str, ref: str, to: str) -> Transition:
    """Make a version the one in staging or in production; raises Withheld with every reason against it."""
    if to not in ("staging", "production"):
        raise Refused(f"{to!r}: a version is promoted to staging or to production")
    if to != "staging":
        from llmops_assets.registry.transition import production_endpoints

        for endpoint in production_endpoints(wiring.catalog, ref.partition("@")[0]):
            end_for(wiring, actor, endpoint.name, f"promote {ref}")
    return _transition(wiring, actor, "stage" if to == "staging" else "promote", ref)


def _transition(wiring: Wiring, actor: str, action: "Action", ref: str) -> Transition:
    from llmops_assets.registry.lifecycle import LEADS_TO, NotAllowed
    from llmops_assets.registry.transition import Registry, transition

    authorise(wiring, actor, f"model.{action}")
    if action != "archive":
        refuse_own(wiring, actor, f"model.{action}", wiring.tracking.version(ref).ref)
    registry = Registry(wiring.tracking, wiring.records, wiring.catalog, wiring.policy)
    try:
        through = transition(registry, action, ref, actor)
    except NotAllowed as error:
        raise Withheld(str(error)) from error
    return Transition(ref, LEADS_TO[action], actor, tuple(through))


def measure_parity(
    wiring: Wiring, actor: str, ref: str, *, items: int | None, engine: str
) -> "tuple[str, ParityRecord]":
    """Serve a version for a moment and compare its tokens with those of its evaluation; the version's ref, and what
    was found. Raises Failed when it cannot be served."""
    from llmops_assets.registry.transition import parity_key
    from llmops_assets.serving.parity_probe import measure_parity as measure
    from resources.model_server import ServerError

    authorise(wiring, actor, "model.parity")
    model = wiring.tracking.model(ref)
    wanted = items or wiring.policy.registry.parity_items
    try:
        record = measure(model, wiring.records, wiring.store, wiring.servers, items=wanted, engine=engine)
    except ServerError as error:
        raise Failed(str(error)) from error
    wiring.records.save(parity_key(model), record)
    wiring.catalog.log(actor, "model.parity", model.ref, passed=record.passed, items=record.items, engine=engine)
    return model.ref, record


def download(wiring: Wiring, actor: str, ref: str, folder: Path) -> tuple[str, str]:
    """Copy a version's files, with its model card, to a folder that is not there yet; the version's ref and its hash.

    Raises Refused when the files are not what was registered. Who took which weights goes to the audit log first.
    """
    from resources.content import SEAL, ContentChanged, verify

    authorise(wiring, actor, "model.download")
    model = wiring.tracking.model(ref)
    if folder.exists():
        raise Refused(f"{folder} is there already: name a folder that is not")
    try:
        verify(model.path, model.content_hash, f"registered as {model.ref}", "Nothing is handed out")
    except ContentChanged as error:
        raise Refused(str(error)) from error
    wiring.catalog.log(
        actor,
        "model.download",
        model.ref,
        content_hash=model.content_hash,
        to=str(folder.absolute()),
        watermark=wiring.tracking.version(model.ref).tags.get("watermark"),
    )
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(model.path, temporary, ignore=shutil.ignore_patterns(SEAL))
    if model.card and Path(model.card).is_file():
        shutil.copy2(model.card, temporary / "README.md")
    temporary.replace(folder)
    return model.ref, model.content_hash


def history(wiring: Wiring, ref: str, limit: int) -> list[dict[str, Any]]:
    """Who did what with a model (`name`, all its versions), a version or a base model, newest first.

    The A/B tests that it took part in belong to it: their decisions say why it got users, or lost them.
    """
    exact = "@" in ref or ref.startswith("hf:")
    lines = {line["id"]: line for line in wiring.catalog.audit_of(ref, exact=exact, limit=limit)}
    for experiment in wiring.catalog.experiments():
        arms = {arm: getattr(experiment.spec, arm) for arm in ("treatment", "control")}
        if not any(arm == ref if exact else arm.startswith(f"{ref}@") for arm in arms.values()):
            continue
        for line in wiring.catalog.audit_of(experiment.name, limit=limit):
            # An endpoint may have the experiment's name.
            if line["action"].startswith("experiment."):
                reason = {"reason": experiment.reason} if line["action"] == "experiment.decide" else {}
                lines[line["id"]] = {**line, "detail": {**arms, **line["detail"], **reason}}
    return sorted(lines.values(), key=lambda line: line["id"], reverse=True)[:limit]
