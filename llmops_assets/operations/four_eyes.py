"""Four eyes: who brought a model about does not decide that users get it, where the policy says so."""

from llmops_assets.operations.errors import Withheld
from llmops_assets.specs.names import training_key
from llmops_assets.wiring import Wiring

_LONGEST_CHAIN = 20


def refuse_own(wiring: Wiring, actor: str, action: str, ref: str) -> None:
    """Raise Withheld where `access.four_eyes` has `action`, and `actor` trained the model `ref` or submitted its data.

    `ref` is a version in the registry, or a base model. The same name is the same person, at every door and by every
    key: the owner of the machine is no exception.
    """
    if action not in wiring.policy.access.four_eyes:
        return
    if (what := contributions(wiring, ref).get(str(actor))) is not None:
        raise Withheld(f"{str(actor)!r} {what}: by the policy (access.four_eyes) somebody else has to do {action}")


def contributions(wiring: Wiring, ref: str) -> dict[str, str]:
    """Who had a hand in a model, by name: what they did. Of a chain of trainings, in every link."""
    if ref.startswith("hf:") or "@" not in ref:
        return _of_base(wiring, ref)
    model = wiring.tracking.model(ref)
    return _of_training(wiring, training_key(model.dataset, model.recipe))


def _of_base(wiring: Wiring, ref: str) -> dict[str, str]:
    lines = wiring.catalog.audit_steps(ref, ["base.register"])
    return {line["actor"]: f"registered {ref}" for line in lines}


def _of_training(wiring: Wiring, cell: str) -> dict[str, str]:
    found: dict[str, str] = {}
    catalog = wiring.catalog
    asked = {(r.dataset, r.recipe): set[str]() for r in catalog.training_requests()}
    for request in catalog.training_requests():
        asked[request.dataset, request.recipe].add(request.requested_by)
    for _ in range(_LONGEST_CHAIN):
        dataset, _, recipe = cell.partition("|")
        for line in catalog.audit_steps(dataset, ["dataset.register"]):
            found.setdefault(line["actor"], f"submitted {dataset}")
        for name in asked.get((dataset, recipe), ()):
            found[name] = f"trained {cell}"
        base = str(catalog.recipe(recipe).get("base_model_ref") or "") if recipe in catalog.recipes() else ""
        if "|" not in base:
            break
        cell = base
    return found
