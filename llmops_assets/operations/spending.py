"""What models, endpoints and teams cost, and what an improvement of an endpoint cost."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from llmops_assets.experiments.price import Candidate, Improvement, Spending, improvement
from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.usage import BY, usage_by
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.wiring import Wiring
from resources.catalog import Experiment, NotFound, TrainingRequest


def spending_by(
    wiring: Wiring, actor: str, by: Collection[str], *, since: str | None = None, until: str | None = None
) -> list[dict[str, Any]]:
    """What was spent by day, endpoint, model or team, the dearest first.

    Tokens, requests, GPU seconds, an estimate of the energy, minutes of reviewers, and all in the policy's currency.

    Training counts on the day that it was asked for, and reviews on theirs; what nobody can name a team (a training) or
    an endpoint (a training, too) for stands under an empty one. Raises Refused for what spending is not kept by.
    """
    if unknown := [name for name in by if name not in BY or name == "key"]:
        raise Refused(f"spending is not kept by {', '.join(unknown)}; choose of day, endpoint, model, team")
    rows = usage_by(wiring, actor, [name for name in BY if name in by], since=since, until=until)
    total: dict[tuple[str, ...], Spending] = {}

    def add(key: dict[str, str], spending: Spending) -> None:
        day = key.get("day")
        if day is None or (since or day) <= day <= (until or day):
            group = tuple(key.get(name, "") for name in by)
            total[group] = total.get(group, Spending()) + spending

    for row in rows:
        tokens = row["prompt_tokens"] + row["completion_tokens"]
        key = {name: str(row[BY[name]]) for name in by}
        total[tuple(key.values())] = total.get(tuple(key.values()), Spending()) + Spending(row["requests"], tokens)
    models = {(r.dataset, r.recipe): r.ref for r in wiring.records.all(RegisteredModelRecord)}
    for request in wiring.catalog.training_requests():
        spent = _training(wiring, request)
        model = models.get((request.dataset, request.recipe)) or f"{request.dataset}|{request.recipe}"
        add({"day": request.requested_at.astimezone(UTC).date().isoformat(), "model": model}, spent)
    minutes = wiring.policy.prices.review_minutes
    for endpoint, model, at in wiring.catalog.reviews.made():
        key = {"day": at.astimezone(UTC).date().isoformat(), "endpoint": endpoint, "model": model}
        add(key, Spending(human_minutes=minutes))
    found = [{**dict(zip(by, group, strict=True)), **_shown(wiring, spent)} for group, spent in total.items()]
    return sorted(found, key=lambda row: (-row["cost"], *(row[name] for name in by)))


def improvements(wiring: Wiring, actor: str, endpoint: str) -> list[Improvement]:
    """Every promotion of an endpoint with what it cost, oldest first.

    Of a promotion count: each training whose model has the promoted one's name, asked for since the promotion before,
    whatever became of it; and the reviews of the endpoint's answers since then. What serving users cost is none of it.
    """
    authorise(wiring, actor, "usage.read")
    wiring.catalog.endpoint(endpoint)
    decided = [e for e in wiring.catalog.experiments() if e.endpoint == endpoint and e.decided_at is not None]
    decided.sort(key=lambda one: one.decided_at or one.started_at)
    found: list[Improvement] = []
    since = datetime.min.replace(tzinfo=UTC)
    for one in decided:
        if one.decision != "promote" or one.decided_at is None:
            continue
        gain = _gain(one)
        if gain is not None:
            found.append(_improvement(wiring, one, gain, since, one.decided_at, decided))
        since = one.decided_at
    return found


def _improvement(
    wiring: Wiring,
    one: Experiment,
    gain: tuple[float, float, float],
    since: datetime,
    until: datetime,
    decided: list[Experiment],
) -> Improvement:
    records = wiring.records.all(RegisteredModelRecord)
    cells = {record.ref: f"{record.dataset}|{record.recipe}" for record in records}
    name = one.spec.treatment.partition("@")[0]
    recipes = {key for key in wiring.catalog.recipes() if _artifact(wiring, key) == name}
    if (own := cells.get(one.spec.treatment)) is not None:
        recipes.add(own.partition("|")[2])
    refs = {cell: ref for ref, cell in cells.items()}
    outcomes = {e.spec.treatment: e.decision or e.state for e in decided if (e.decided_at or since) <= until}
    candidates: dict[str, Candidate] = {}
    for request in wiring.catalog.training_requests():
        cell = f"{request.dataset}|{request.recipe}"
        if request.recipe not in recipes or not since < request.requested_at <= until or cell in candidates:
            continue
        ref = refs.get(cell)
        trained = wiring.records.find(AdapterRecord, cell) is not None
        state = "not tried" if ref else "withheld" if trained else "failed"
        candidates[cell] = Candidate(cell, outcomes.get(ref or "", state), _training(wiring, request))
    reviews = sum(endpoint == one.endpoint and since < at <= until for endpoint, _, at in wiring.catalog.reviews.made())
    people = Spending(human_minutes=reviews * wiring.policy.prices.review_minutes)
    return improvement(one.name, one.spec.treatment, gain, list(candidates.values()), people, wiring.policy.prices)


def _gain(one: Experiment) -> tuple[float, float, float] | None:
    """The deciding metric's difference with its interval, as the decision was made on it."""
    figures = one.figures or {}
    values = [figures.get(name) for name in ("rating_difference", "rating_low", "rating_high")]
    found = [float(value) for value in values if value is not None]
    return (found[0], found[1], found[2]) if len(found) == 3 else None


def _artifact(wiring: Wiring, recipe: str) -> str | None:
    try:
        return wiring.catalog.recipe(recipe)["output"]["artifact_name"]
    except (KeyError, NotFound):
        return None


def _training(wiring: Wiring, request: TrainingRequest) -> Spending:
    """What a training took, as its worker measured it; nothing while it has not trained, or found all of it done."""
    cell = f"{request.dataset}|{request.recipe}"
    record, plan = wiring.records.find(AdapterRecord, cell), wiring.records.find(PlanRecord, cell)
    if record is None or record.reused:
        return Spending()
    resources = plan.spec.get("resources", {}) if plan is not None else {}
    gpus = int(resources.get("gpus") or 0) * int(resources.get("nodes") or 1)
    if plan is not None and plan.device == "cuda" and gpus:
        return Spending(gpu_seconds=record.seconds * gpus)
    return Spending(cpu_seconds=record.seconds)


def _shown(wiring: Wiring, spent: Spending) -> dict[str, Any]:
    prices = wiring.policy.prices
    return {**vars(spent), "kwh": spent.kwh(prices), "cost": spent.cost(prices), "currency": prices.currency}
