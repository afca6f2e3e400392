"""Whether a version may get users: it is what was registered, these weights were evaluated, somebody approved."""

from pathlib import Path

from llmops_assets.evaluation.gate import judge_gate
from llmops_assets.evaluation.verdicts import suites_unseen
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import QuantizedModelRecord, RegisteredModelRecord
from llmops_assets.specs.names import training_key
from llmops_assets.specs.policy import Policy
from resources.catalog import Catalog
from resources.content import difference
from resources.records import Records

REGISTERED = ("content_hash", "dataset", "recipe", "family", "job_type", "path", "scheme")
"""What the audit line of a registration keeps of the version, to hold the registry's tags to."""
_STEPS = ("model.register", "model.approve", "model.archive")
_REGISTERED_BY = ("model.register", "model.update")
_GRAPH = ("registered_model", "quantized_model")


def registration(model: RegisteredModelRecord, catalog: Catalog) -> dict[str, str]:
    """What the audit line of a version's registration is to keep of it."""
    values = {name: getattr(model, name) for name in REGISTERED}
    return {name: catalog.paths.stored(str(value)) for name, value in values.items() if value}


def changed_tags(model: RegisteredModelRecord, catalog: Catalog) -> list[str]:
    """What the registry says of a version otherwise than when it was registered: somebody changed its tags by hand."""
    known = _registered(model, catalog)
    now = registration(model, catalog)
    return [
        f"the registry's tag {name} of {model.ref} was changed by hand: {known[name]} became {now.get(name, 'nothing')}"
        for name in REGISTERED
        if name in known and known[name] != now.get(name)
    ]


def changed_content(model: RegisteredModelRecord) -> str | None:
    """How the folder of a version does not hold what was registered, None where it does."""
    found = difference(Path(model.path), model.content_hash)
    if found is None:
        return None
    return (
        f"{found} what was registered as {model.ref} with the content {model.content_hash}: look into {model.path}. "
        "Restore the folder from a backup, or register what is there as a version of its own"
    )


def gate_of(
    model: RegisteredModelRecord, records: Records, policy: Policy, catalog: Catalog
) -> tuple[bool, str] | None:
    """What the evaluation of exactly these weights came to, (passed, what was found); None without one.

    A version whose cell was trained again since has the word of its registration: it was registered as one that met its
    gate.
    """
    cell = training_key(model.dataset, model.recipe)
    if model.scheme:
        made = records.find(QuantizedModelRecord, cell)
        mine = next((m for m in made.models if m.content_hash == model.content_hash), None) if made else None
        if mine is not None:
            return mine.passed, mine.explanation
    else:
        evaluation = records.find(EvaluationRecord, cell)
        if evaluation is not None and evaluation.model_hash == model.content_hash:
            outcome = judge_gate(evaluation, policy.gates[model.job_type])
            return outcome.passed, outcome.explanation
    known = _registered(model, catalog)
    if known.get("content_hash") == model.content_hash and known.get("by") in _GRAPH:
        return True, known.get("gate") or "it met its gate when it was registered"
    return None


def approval_of(ref: str, catalog: Catalog) -> str:
    """Whether a version is `approved` (by a person, or by the policy as it was registered), `archived`, or neither
    (`draft`), by the audit log.

    The registry's aliases and tags say what anybody may have set; who approved stands in the audit log alone.
    """
    state = "draft"
    for line in catalog.audit_steps(ref, _STEPS):
        if line["action"] == "model.register":
            state = "approved" if line["detail"].get("state") == "staging" else "draft"
        else:
            state = "approved" if line["action"] == "model.approve" else "archived"
    return state


def contaminated(model: RegisteredModelRecord, records: Records, policy: Policy) -> list[str]:
    """Why the evaluation of exactly these weights says nothing by today's limit: items that they were trained on.

    A cell may have been evaluated anew since the version was registered, and the policy's limit may be another.
    """
    evaluation = records.find(EvaluationRecord, training_key(model.dataset, model.recipe))
    if evaluation is None or model.scheme or evaluation.model_hash != model.content_hash:
        return []
    found = suites_unseen(evaluation, policy.datasets.max_contaminated_share)
    return [] if found.passed else [f"{model.ref}: {found.text}"]


def refusals(
    model: RegisteredModelRecord, environment: str, records: Records, policy: Policy, catalog: Catalog
) -> list[str]:
    """Every reason for which a version gets no users in an environment; none where it may have them."""
    reasons = changed_tags(model, catalog)
    if (changed := changed_content(model)) is not None:
        reasons.append(changed)
    if gate_of(model, records, policy, catalog) is None:
        reasons.append(
            f"no evaluation of the weights {model.content_hash} of {model.ref} is on record: materialise `evaluation` "
            f"of {training_key(model.dataset, model.recipe)}"
        )
    reasons += contaminated(model, records, policy)
    approval = approval_of(model.ref, catalog)
    if approval == "archived":
        reasons.append(f"{model.ref} is archived: approve it again first (llmops model approve {model.ref})")
    elif environment == "production" and approval != "approved":
        reasons.append(
            f"nobody approved {model.ref}, whatever its alias says, and production serves approved models only: have "
            f"it approved (llmops model approve {model.ref})"
        )
    return reasons


def _registered(model: RegisteredModelRecord, catalog: Catalog) -> dict[str, str]:
    """What the audit log kept of a version when it was registered; nothing of one that somebody else registered."""
    lines = catalog.audit_steps(model.ref, _REGISTERED_BY)
    return {**lines[-1]["detail"], "by": lines[-1]["actor"]} if lines else {}


def note_update(model: RegisteredModelRecord, actor: str, catalog: Catalog) -> None:
    """Note that a version that was registered before is now that of another training, which gave the same weights."""
    if changed_tags(model, catalog):
        catalog.log(actor, "model.update", model.ref, **registration(model, catalog))
