"""Which share of an endpoint's users each model gets: the route table that a deployment moves to."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmops_assets.specs.deployment import Holdout

Routes = list[dict[str, Any]]


class NotServed(ValueError):
    """A model that users shall keep, and that none of them has; the message says which they have."""


def planned(
    new: Mapping[str, Any],
    share: float,
    routes: Sequence[Mapping[str, Any]],
    *,
    keep_models: int = 1,
    holdout: Holdout | None = None,
) -> Routes:
    """The routes in which `new` (a route without a weight) has `share` percent of the users, less those held out.

    The models that have most of the others keep them, `keep_models` of them in equal parts; any further is retired.
    Where there is no other model, the new one gets all. Who is held out comes first, then the models that were there,
    then the new one: so users move towards it when its share grows, none moves back, and who is held out stays so
    whatever the others get. Raises NotServed.
    """
    held = held_out(str(new["model_ref"]), routes, holdout)
    others: dict[str, Routes] = {}
    for route in without_holdout(routes):
        if route["model_ref"] != new["model_ref"]:
            others.setdefault(route["model_ref"], []).append(route)
    largest = sorted(others, key=lambda ref: -math.fsum(r["weight"] for r in others[ref]))[:keep_models]
    kept = [ref for ref in others if ref in largest] if share < 100 else []
    share = share if kept else 100
    rest = (100 - math.fsum(route["weight"] for route in held)) / 100 if held else 1
    table = held
    draw = _draw(routes, is_one=not kept)
    for ref in kept:
        weight = (100 - share) * rest / len(kept) / len(others[ref])
        table += [{**route, "weight": weight, **draw} for route in others[ref]]
    return [*table, {**new, "weight": share * rest, **draw}]


def _draw(routes: Sequence[Mapping[str, Any]], *, is_one: bool) -> dict[str, int]:
    """The round in which users are drawn (`assignment.assign_anew`), left out in the first.

    A round ends when one model gets all users again: nobody moves then, and who meets the next one is another draw.
    """
    now = without_holdout(routes)
    round_ = max((int(route.get("draw", 0)) for route in now), default=0)
    round_ += is_one and len({route["model_ref"] for route in now}) > 1
    return {"draw": round_} if round_ else {}


def held_out(new_ref: str, routes: Sequence[Mapping[str, Any]], holdout: Holdout | None) -> Routes:
    """The routes of the users who stay on the model from before; none where nobody shall, or there was no other.

    Who is held out already keeps the model that they have, unless the spec names another. Raises NotServed where it
    names one that no user of the endpoint has.
    """
    if holdout is None:
        return []
    held = [dict(route) for route in routes if is_holdout(route)]
    if not held or holdout.model_ref not in (None, held[0]["model_ref"]):
        others = without_holdout(routes)
        if holdout.model_ref is not None:
            held = [route for route in others if route["model_ref"] == holdout.model_ref]
            if not held:
                known = ", ".join(sorted({route["model_ref"] for route in others})) or "none"
                raise NotServed(
                    f"holdout.model_ref: {holdout.model_ref} cannot be kept for {holdout.percent} % of the users, "
                    f"because none of them has it; they have {known}. Deploy it first, or leave model_ref out"
                )
        else:
            before = shares([route for route in others if route["model_ref"] != new_ref])
            largest = max(before, key=lambda ref: before[ref], default=None)
            held = [route for route in others if route["model_ref"] == largest]
    return [{**route, "weight": holdout.percent / len(held), "holdout": True} for route in held]


def is_holdout(route: Mapping[str, Any]) -> bool:
    """Whether a route's users are held out: they stay on the model from before, and take part in no comparison."""
    return bool(route.get("holdout"))


def without_holdout(routes: Iterable[Mapping[str, Any]]) -> Routes:
    """The routes of all other users."""
    return [dict(route) for route in routes if not is_holdout(route)]


def shares(routes: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Percent of the users by model."""
    table = list(routes)
    total = math.fsum(route["weight"] for route in table) or 1.0
    by_model: dict[str, float] = {}
    for route in table:
        by_model[route["model_ref"]] = by_model.get(route["model_ref"], 0.0) + 100 * route["weight"] / total
    return by_model
