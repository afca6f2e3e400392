"""What endpoints shall serve."""

from dataclasses import dataclass

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Failed
from llmops_assets.operations.four_eyes import refuse_own
from llmops_assets.operations.prompts import resolve_for
from llmops_assets.operations.running_tests import end_for
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.wiring import Wiring

_ALL_USERS = 99.99
"""Per cent, as replicas add it up."""


@dataclass(frozen=True)
class Wanted:
    """What an endpoint shall serve from here on, under the revision that the graph acknowledges."""

    endpoint: str
    revision: int
    model_ref: str


def want_endpoint(
    wiring: Wiring, actor: str, spec: DeploymentSpec, *, force: bool = False, salt: str | None = None
) -> Wanted:
    """Say what an endpoint shall serve; `force` ends an experiment that runs on it, on record.

    salt: which users of a new endpoint get which model; drawn where none is given. Raises ModelAffected for a model
    that learned from erased rows, InUse while an experiment runs there, Conflict for an endpoint that is being
    deleted.
    """
    authorise(wiring, actor, "endpoint.want")
    refuse_affected(wiring, spec.model_ref)
    refuse_own_promotion(wiring, actor, spec)
    resolve_for(wiring, actor, spec)
    end_for(wiring, actor, spec.endpoint, f"deploy {spec.model_ref}", force=force)
    endpoint = wiring.catalog.want_endpoint(spec, actor, salt=salt)
    return Wanted(endpoint.name, endpoint.revision, spec.model_ref)


def refuse_own_promotion(wiring: Wiring, actor: str, spec: DeploymentSpec) -> None:
    """Raise Withheld where a deployment would give users of production the actor's own model, which the policy keeps
    from them. What serves there already is no new decision."""
    if spec.environment != "production" or "model.promote" not in wiring.policy.access.four_eyes:
        return
    routes = wiring.catalog.endpoint(spec.endpoint).routes if spec.endpoint in wiring.catalog.endpoint_names() else []
    ref = wiring.tracking.version(spec.model_ref).ref
    if sum(route["weight"] for route in routes if route["model_ref"] == ref) < _ALL_USERS:
        refuse_own(wiring, actor, "model.promote", ref)


def delete_endpoint(
    wiring: Wiring, actor: str, name: str, *, force: bool = False, operation: str | None = None
) -> None:
    """Stop an endpoint's model servers and forget it; under the same `operation`, once.

    `force` ends an experiment that runs on it, on record. Raises NotFound, InUse while one runs there, or Failed
    naming what could not be stopped: that stays on record, and the same call goes on.
    """
    authorise(wiring, actor, "endpoint.delete")
    if wiring.catalog.operations.done(operation, "delete", name) is not None:
        return
    wiring.catalog.endpoint(name)
    end_for(wiring, actor, name, "delete the endpoint", force=force)
    # A deployment that is under way ends first, or it would bring back what is stopped here.
    with wiring.servers.exclusively(name):
        wiring.catalog.update_endpoint(name, state="deleting", message="")
        wiring.catalog.set_routes(name, [], actor)
        ids = [backend.id for backend in wiring.catalog.backends(name)]
        wiring.servers.unwant(ids)
        left = wiring.servers.wait_gone(ids)
    if left:
        message = f"not stopped: {'; '.join(left)}. The record stays; it is tried again, or run the same command again"
        wiring.catalog.update_endpoint(name, state="deleting", message=message)
        raise Failed(message)
    wiring.catalog.remove_endpoint(name, actor, operation=operation)


def refuse_affected(wiring: Wiring, *refs: str) -> None:
    """Raise ModelAffected for a model that has learned from rows that were erased since.

    A model that is not there yet is for the graph to judge.
    """
    from resources.catalog.erasures import assert_not_affected
    from resources.tracking import UnknownModel

    for ref in refs:
        try:
            version = wiring.tracking.version(ref)
        except (UnknownModel, ValueError):
            continue
        assert_not_affected(wiring.catalog, ref=version.ref, content_hash=version.tags.get("content_hash"))
