"""Gathers what a version's next step is judged by, and takes the step."""

from dataclasses import dataclass
from datetime import UTC, datetime

from llmops_assets.records.registry import ParityRecord, RegisteredModelRecord
from llmops_assets.registry.lifecycle import Action, TransitionEvidence, judge
from llmops_assets.serving import admission
from llmops_assets.specs.names import training_key
from llmops_assets.specs.policy import Policy
from llmops_assets.training.erased_rows import learned_nothing_erased
from resources.catalog import Catalog, Endpoint
from resources.catalog.erasures import ModelAffected, assert_not_affected
from resources.records import Records
from resources.tracking import ModelVersion, Tracking


@dataclass(frozen=True)
class Registry:
    """What is asked about a version, and where its steps are written down."""

    tracking: Tracking
    records: Records
    catalog: Catalog
    policy: Policy


def erasure_of(registry: Registry, model: RegisteredModelRecord) -> str | None:
    """Which erasure touched what a version learned from, or None."""
    try:
        assert_not_affected(registry.catalog, ref=model.ref, content_hash=model.content_hash)
    except ModelAffected as error:
        return str(error)
    verdict = learned_nothing_erased(registry.catalog, training_key(model.dataset, model.recipe))
    return None if verdict.passed else verdict.text


def evidence_of(registry: Registry, ref: str) -> TransitionEvidence:
    """Where the version that `ref` names stands; raises UnknownModel when there is none."""
    version = registry.tracking.version(ref)
    model = registry.tracking.model(version.ref)
    gate = admission.gate_of(model, registry.records, registry.policy, registry.catalog)
    changed = admission.changed_tags(model, registry.catalog)
    parity = registry.records.find(ParityRecord, parity_key(model))
    known = parity is not None and parity.model_hash == model.content_hash
    return TransitionEvidence(
        ref=version.ref,
        state=version.state,
        evaluated=gate is not None,
        gate=gate,
        parity=(parity.passed, parity.explanation) if known else None,
        erasure=erasure_of(registry, model),
        was_staged="staged_at" in version.tags or version.state in ("staging", "production"),
        served_on=tuple(
            endpoint.name
            for endpoint in registry.catalog.endpoints()
            if any(route["model_ref"] == version.ref for route in endpoint.routes)
        ),
        changed=tuple(filter(None, [*changed, admission.changed_content(model)])),
        approved=admission.approval_of(version.ref, registry.catalog) == "approved",
    )


def parity_key(model: RegisteredModelRecord) -> str:
    """Where the parity of a version is on record: its training's cell, and how it was compressed."""
    cell = training_key(model.dataset, model.recipe)
    return f"{cell}|{model.scheme}" if model.scheme else cell


def transition(registry: Registry, action: Action, ref: str, actor: str) -> list[str]:
    """Take a step that is allowed, and write down who took it.

    Returns the endpoints through whose deployment a promotion goes: there the alias moves once the model answers.
    Raises NotAllowed with every reason when the step is refused.
    """
    where = evidence_of(registry, ref)
    judge(action, where).check()
    version = registry.tracking.version(where.ref)
    tags, through = {}, []
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    if action == "approve":
        tags = {"state": "approved", "approved_by": actor, "approved_at": moment}
    elif action == "archive":
        tags = {"state": "archived", "archived_by": actor, "archived_at": moment}
        for alias in version.aliases:
            registry.tracking.delete_alias(version.name, alias)
    elif action == "stage":
        tags = {"staged_by": actor, "staged_at": moment}
        registry.tracking.set_alias(version.name, "staging", version.version)
    else:
        tags = {"promoted_by": actor, "promoted_at": moment}
        through = _deploy(registry, version, actor)
        if not through:
            registry.tracking.set_alias(version.name, "production", version.version)
            if "staging" in version.aliases:
                registry.tracking.delete_alias(version.name, "staging")
    for key, value in tags.items():
        registry.tracking.tag(version.name, version.version, key, value)
    registry.catalog.log(
        actor,
        f"model.{action}",
        version.ref,
        before=where.state,
        content_hash=version.tags.get("content_hash"),
        **({"through": through} if through else {}),
    )
    return through


def _deploy(registry: Registry, version: ModelVersion, actor: str) -> list[str]:
    """Have every production endpoint of this model deploy the version; their names."""
    names = []
    for endpoint in production_endpoints(registry.catalog, version.name):
        registry.catalog.want_endpoint(endpoint.spec.model_copy(update={"model_ref": version.ref}), actor)
        names.append(endpoint.name)
    return names


def production_endpoints(catalog: Catalog, model: str) -> list[Endpoint]:
    """The endpoints that a promotion of a model would deploy."""
    return [
        endpoint
        for endpoint in catalog.endpoints()
        if endpoint.spec.environment == "production"
        and endpoint.spec.model_name == model
        and endpoint.state != "deleting"
    ]
