"""What an endpoint served at a moment: models with their shares and data, the prompt, the index; read from the log."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring

ROUTES, PROMPT, REMOVED, INDEX = "endpoint.routes", "endpoint.prompt", "endpoint.remove", "index.publish"
WANTED = "endpoint.want"


@dataclass(frozen=True)
class ServedModel:
    """A model with its share of the users in percent, and what it was made from (None: no longer in the registry).

    `rag` is how it was given passages, `holdout` whether its users were held out of what the others got.
    """

    model_ref: str
    weight: float
    dataset: str | None
    recipe: str | None
    content_hash: str | None
    index: str | None
    index_version: str | None
    index_dataset: str | None
    rag: dict[str, Any] | None = None
    holdout: bool = False


@dataclass(frozen=True)
class Served:
    """What an endpoint served at a moment, since when, and by whose doing."""

    endpoint: str
    at: datetime
    since: datetime
    by: str
    models: list[ServedModel]
    prompt: str | None


def served_at(wiring: Wiring, endpoint: str, at: datetime) -> Served:
    """What `endpoint` served at the moment `at` (aware).

    Raises NotFound where there is and was no such endpoint, Refused where it did not serve yet, or not any more.

    The audit log is asked, which nothing changes: a model that was archived or erased since is still named, and so is
    an endpoint that was deleted.
    """
    if at.tzinfo is None:
        raise Refused(f"{at.isoformat()} has no time zone: write it as 2026-11-30T09:00:00+09:00")
    lines = wiring.catalog.audit_steps(endpoint, (ROUTES, PROMPT, REMOVED))
    before = [line for line in lines if line["at"] <= at]
    last = next((line for line in reversed(before) if line["action"] in (ROUTES, REMOVED)), None)
    if last is None:
        first = next((line for line in lines if line["action"] == ROUTES), None)
        if first is None and not wiring.catalog.audit_steps(endpoint, (WANTED,)):
            # Raises for a name that nobody ever deployed under.
            wiring.catalog.endpoint(endpoint)
        since = f"; it first served at {first['at'].isoformat()}" if first else ""
        raise Refused(f"endpoint {endpoint!r} served nothing at {at.isoformat()}{since}")
    if last["action"] == REMOVED:
        raise Refused(f"endpoint {endpoint!r} had been deleted by {last['actor']} at {last['at'].isoformat()}")
    prompts = [line for line in before if line["action"] in (PROMPT, REMOVED)]
    return Served(
        endpoint=endpoint,
        at=at,
        since=last["at"],
        by=last["actor"],
        models=[_model(wiring, route, at) for route in last["detail"]["routes"]],
        prompt=prompts[-1]["detail"].get("prompt") if prompts else None,
    )


def _model(wiring: Wiring, route: dict[str, Any], at: datetime) -> ServedModel:
    from resources.tracking import UnknownModel

    try:
        model = wiring.tracking.model(route["model_ref"])
    except (UnknownModel, ValueError):
        model = None
    index = (route.get("rag") or {}).get("index")
    published = wiring.catalog.audit_steps(index, (INDEX,)) if index else []
    version = next((line["detail"] for line in reversed(published) if line["at"] <= at), {})
    return ServedModel(
        model_ref=route["model_ref"],
        weight=float(route.get("weight", 0)),
        dataset=model.dataset if model else None,
        recipe=model.recipe if model else None,
        content_hash=model.content_hash if model else None,
        index=index,
        index_version=version.get("version"),
        index_dataset=version.get("dataset"),
        rag=route.get("rag"),
        holdout=bool(route.get("holdout")),
    )
