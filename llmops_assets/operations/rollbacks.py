"""Bringing an endpoint back to what it served at a moment: model, prompt and index, in one operation."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from llmops_assets.operations.access import authorise
from llmops_assets.operations.endpoints import Wanted, refuse_affected, refuse_own_promotion
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.history import ServedModel, served_at
from llmops_assets.operations.running_tests import end_for
from llmops_assets.serving.together import BACK_TO
from llmops_assets.specs.deployment import DeploymentSpec, RagServing
from llmops_assets.specs.policy import JobType
from llmops_assets.specs.prompt import Prompt
from llmops_assets.wiring import Wiring
from resources.prompts import Prompts, UnknownPrompt
from resources.retrieval.engine import EngineUnavailable
from resources.retrieval.indexes import IndexCorrupt, UnknownIndex
from resources.tracking import UnknownModel

_DIGITS = 9
"""Of a revision, at most: databases count in 32 bits."""


@dataclass(frozen=True)
class WayBack:
    """What an endpoint would go back to: as it was at `at`, and what is wanted of it then.

    `index` is the name with the version that it shall stand for, `shared_with` the other endpoints that search in it.
    """

    endpoint: str
    at: datetime
    model_ref: str
    prompt: str | None
    index: tuple[str, str] | None
    shared_with: list[str]
    spec: DeploymentSpec

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "spec": self.spec.model_dump(mode="json", exclude_none=True)}


def point_of(text: str) -> datetime | int:
    """Where somebody wants to go back to, as they write it: digits are a revision, all else is a moment in ISO 8601.

    A moment without a zone is in this machine's. Raises Refused for what is neither.
    """
    if text.isascii() and text.isdigit():
        if len(text) > _DIGITS:
            raise Refused(f"{text[:20]}… is no revision: `llmops endpoint list` shows the numbers that there are")
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refused(
            f"{text[:100]!r} is neither a revision nor a time: write 41, 2026-11-30T09:00 or 2026-11-30T09:00:00+09:00"
        ) from error
    return found if found.tzinfo else found.astimezone()


def way_back(wiring: Wiring, name: str, to: datetime | int | str, *, model: str | None = None) -> WayBack:
    """What endpoint `name` served at a moment (aware), or once its revision of that number was there.

    `to` may be a text (`point_of`); `model` names one where several shared its users then. Raises NotFound, or Refused
    naming what of it is gone: the model or its folder, the prompt's version, the index's version.
    """
    endpoint = wiring.catalog.endpoint(name)
    to = point_of(to) if isinstance(to, str) else to
    at = to if isinstance(to, datetime) else _when_served(wiring, name, to)
    served = served_at(wiring, name, at)
    route = _one_model(served.models, model, f"endpoint {name!r} at {at.isoformat()}")
    found = _model(wiring, route.model_ref)
    prompt = _prompt(wiring, served.prompt)
    index = _index(wiring, route)
    served_as = wiring.catalog.served_as(name, found.ref, at)
    spec = endpoint.spec.for_all_users(found.ref, found.family, cast(JobType, found.job_type), served_as)
    changes: dict[str, Any] = {"prompt": prompt, "serve_target": "GENERATION", "rag": None}
    if route.rag is not None:
        changes |= {"serve_target": "RAG", "rag": RagServing.model_validate(route.rag), "cache": None}
    spec = spec.model_copy(update=changes)
    try:
        spec = DeploymentSpec.model_validate(spec.model_dump(mode="json", exclude_none=True))
    except ValidationError as error:
        raise Refused(f"what {name} served at {at.isoformat()} is no deployment of this version: {error}") from error
    others = [
        one.name
        for one in wiring.catalog.endpoints()
        if index is not None and one.name != name and one.spec.rag is not None and one.spec.rag.index == index[0]
    ]
    return WayBack(name, at, found.ref, prompt.ref if prompt else None, index, sorted(others), spec)


def roll_back_to(
    wiring: Wiring,
    actor: str,
    name: str,
    to: datetime | int | str,
    *,
    model: str | None = None,
    shared_index: bool = False,
    operation: str | None = None,
) -> Wanted:
    """Want an endpoint to serve again what it served at a moment, or as a revision: model, prompt and index together.

    The run that carries it out changes all three at one time, or none of them. Under the same `operation` it acts once.
    An experiment that runs there ends, on record. Raises as `way_back`, ModelAffected, Withheld, and Refused where
    other endpoints search in the index, unless `shared_index` says that they shall go back with it.
    """
    authorise(wiring, actor, "endpoint.want")
    if (done := wiring.catalog.operations.done(operation, "rollback", name)) is not None:
        return Wanted(name, int(done.result["revision"]), wiring.catalog.endpoint(name).spec.model_ref)
    revision = wiring.catalog.endpoint(name).revision
    found = way_back(wiring, name, to, model=model)
    if found.index is not None and found.shared_with and not shared_index and _moves(wiring, *found.index):
        raise Refused(
            f"{', '.join(found.shared_with)} search in index {found.index[0]} too, and would get its version "
            f"{found.index[1]} with {name}: say --shared-index if they shall"
        )
    refuse_affected(wiring, found.model_ref)
    refuse_own_promotion(wiring, actor, found.spec)
    end_for(wiring, actor, name, f"go back to {found.model_ref} as of {found.at.isoformat()}", force=True)
    prompt = found.spec.prompt
    detail = {
        "at": found.at.isoformat(),
        "prompt": [prompt.name, prompt.version] if prompt else None,
        "index": list(found.index) if found.index else None,
    }
    revision = wiring.catalog.want_endpoint_once(
        found.spec,
        actor,
        kind="rollback",
        operation=operation,
        detail={BACK_TO: detail},
        expected_revision=revision,
    )
    return Wanted(name, revision, found.model_ref)


def _moves(wiring: Wiring, index: str, version: str) -> bool:
    try:
        return wiring.indexes.version(index) != version
    except UnknownIndex:
        return True


def _when_served(wiring: Wiring, name: str, revision: int) -> datetime:
    """When what a revision wanted was there. Raises Refused where it never was."""
    intent = wiring.catalog.intents.revision("deploy", name, revision)
    if intent is None:
        newest = wiring.catalog.intents.newest("deploy", name)
        known = f"the newest is {newest.revision}" if newest else "nothing was ever wanted of it"
        raise Refused(f"endpoint {name!r} has no revision {revision}: {known}")
    if intent.outcome != "done" or intent.closed_at is None:
        why = f"{intent.outcome or 'it is on its way'}{f': {intent.reason}' if intent.reason else ''}"
        raise Refused(f"revision {revision} of endpoint {name!r} was never served: {why}")
    return intent.closed_at


def _one_model(models: list[ServedModel], wanted: str | None, where: str) -> ServedModel:
    shares = [one for one in models if one.weight > 0 and not one.holdout]
    found = [one for one in shares if wanted in (None, one.model_ref)]
    if len({one.model_ref for one in found}) == 1:
        return found[0]
    served = ", ".join(f"{one.model_ref} ({one.weight:g} %)" for one in shares)
    if wanted is not None:
        raise Refused(f"{where} did not serve {wanted}: it served {served}")
    raise Refused(f"{where} served {served}: name one with --model")


def _model(wiring: Wiring, ref: str) -> Any:
    try:
        found = wiring.tracking.model(ref)
    except (UnknownModel, ValueError) as error:
        raise Refused(f"model {ref} cannot be served again: {error}") from error
    if not (Path(found.path) / "config.json").is_file():
        raise Refused(f"model {ref} cannot be served again: its folder {found.path} is gone. Restore it from a backup")
    if wiring.tracking.version(ref).state == "archived":
        raise Refused(f"model {ref} cannot be served again: it is archived")
    return found


def _prompt(wiring: Wiring, label: str | None) -> Prompt | None:
    """The version itself: an alias would lead to the one of today."""
    if label is None:
        return None
    name, _, version = label.rpartition("@")
    prompt = Prompt(name=name, version=int(version))
    try:
        Prompts(wiring.tracking).resolve(prompt)
    except UnknownPrompt as error:
        raise Refused(f"prompt {label} cannot be used again: {error}") from error
    return prompt


def _index(wiring: Wiring, route: ServedModel) -> tuple[str, str] | None:
    if route.index is None:
        return None
    if route.index_version is None:
        raise Refused(f"which version of index {route.index} was searched then is not on record: deploy without --to")
    try:
        wiring.indexes.read(route.index_version)
    except (IndexCorrupt, EngineUnavailable) as error:
        raise Refused(
            f"version {route.index_version} of index {route.index} cannot be searched again: {error}. Versions that no "
            f"name stands for are collected after a day; build it anew from {route.index_dataset}: llmops index build"
        ) from error
    return route.index, route.index_version
