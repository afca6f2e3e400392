"""Adds up what was used by day, endpoint, model and team, and what each promotion of an endpoint took."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.specs.prices import Prices
from llmops_assets.usage.price import Candidate, Improvement, Spending, improvement
from resources.catalog import Catalog, Experiment, NotFound, TrainingRequest
from resources.records import Records

BY = {"day": "day", "endpoint": "endpoint", "model": "model_ref", "team": "team"}
"""What spending is kept by, and what the ledger calls it."""


@dataclass(frozen=True)
class Books:
    """Where what was used is on record, and what it is counted with."""

    catalog: Catalog
    records: Records
    prices: Prices


def spending_by(
    books: Books, by: Collection[str], *, since: str | None = None, until: str | None = None
) -> list[dict[str, Any]]:
    """What was spent by day, endpoint, model or team, the dearest first.

    Tokens, requests, GPU seconds, an estimate of the energy, minutes of reviewers, and all in the policy's currency.

    Training counts on the day that it was asked for, and reviews on theirs; what nobody can name a team (a training) or
    an endpoint (a training, too) for stands under an empty one.
    """
    rows = books.catalog.usage.by([BY[name] for name in by], since=since, until=until)
    total: dict[tuple[str, ...], Spending] = {}

    def add(key: dict[str, str], spending: Spending) -> None:
        day = key.get("day")
        if day is None or (since or day) <= day <= (until or day):
            group = tuple(key.get(name, "") for name in by)
            total[group] = total.get(group, Spending()) + spending

    for row in rows:
        if not row["requests"]:
            # Of what was refused there are rows that cost nothing.
            continue
        tokens = row["prompt_tokens"] + row["completion_tokens"]
        key = {name: str(row[BY[name]]) for name in by}
        total[tuple(key.values())] = total.get(tuple(key.values()), Spending()) + Spending(row["requests"], tokens)
    models = {(r.dataset, r.recipe): r.ref for r in books.records.all(RegisteredModelRecord)}
    for request in books.catalog.training_requests():
        spent = _training(books, request)
        model = models.get((request.dataset, request.recipe)) or f"{request.dataset}|{request.recipe}"
        add({"day": request.requested_at.astimezone(UTC).date().isoformat(), "model": model}, spent)
    minutes = books.prices.review_minutes
    for endpoint, model, at in books.catalog.reviews.made():
        key = {"day": at.astimezone(UTC).date().isoformat(), "endpoint": endpoint, "model": model}
        add(key, Spending(human_minutes=minutes))
    found = [{**dict(zip(by, group, strict=True)), **_shown(books, spent)} for group, spent in total.items()]
    return sorted(found, key=lambda row: (-row["cost"], *(row[name] for name in by)))


def improvements(books: Books, endpoint: str) -> list[Improvement]:
    """Every promotion of an endpoint with what it cost, oldest first.

    Of a promotion count: each training whose model has the promoted one's name, asked for since the promotion before,
    whatever became of it; and the reviews of the endpoint's answers since then. What serving users cost is none of it.
    """
    books.catalog.endpoint(endpoint)
    decided = [e for e in books.catalog.experiments() if e.endpoint == endpoint and e.decided_at is not None]
    decided.sort(key=lambda one: one.decided_at or one.started_at)
    found: list[Improvement] = []
    since = datetime.min.replace(tzinfo=UTC)
    for one in decided:
        if one.decision != "promote" or one.decided_at is None:
            continue
        gain = _gain(one)
        if gain is not None:
            found.append(_improvement(books, one, gain, since, one.decided_at, decided))
        since = one.decided_at
    return found


def _improvement(
    books: Books,
    one: Experiment,
    gain: tuple[float, float, float],
    since: datetime,
    until: datetime,
    decided: list[Experiment],
) -> Improvement:
    records = books.records.all(RegisteredModelRecord)
    cells = {record.ref: f"{record.dataset}|{record.recipe}" for record in records}
    name = one.spec.treatment.partition("@")[0]
    recipes = {key for key in books.catalog.recipes() if _artifact(books, key) == name}
    if (own := cells.get(one.spec.treatment)) is not None:
        recipes.add(own.partition("|")[2])
    refs = {cell: ref for ref, cell in cells.items()}
    outcomes = {e.spec.treatment: e.decision or e.state for e in decided if (e.decided_at or since) <= until}
    candidates: dict[str, Candidate] = {}
    for request in books.catalog.training_requests():
        cell = f"{request.dataset}|{request.recipe}"
        if request.recipe not in recipes or not since < request.requested_at <= until or cell in candidates:
            continue
        ref = refs.get(cell)
        trained = books.records.find(AdapterRecord, cell) is not None
        state = "not tried" if ref else "withheld" if trained else "failed"
        candidates[cell] = Candidate(cell, outcomes.get(ref or "", state), _training(books, request))
    reviews = sum(endpoint == one.endpoint and since < at <= until for endpoint, _, at in books.catalog.reviews.made())
    people = Spending(human_minutes=reviews * books.prices.review_minutes)
    return improvement(one.name, one.spec.treatment, gain, list(candidates.values()), people, books.prices)


def _gain(one: Experiment) -> tuple[float, float, float] | None:
    """The deciding metric's difference with its interval, as the decision was made on it."""
    figures = one.figures or {}
    values = [figures.get(name) for name in ("rating_difference", "rating_low", "rating_high")]
    found = [float(value) for value in values if value is not None]
    return (found[0], found[1], found[2]) if len(found) == 3 else None


def _artifact(books: Books, recipe: str) -> str | None:
    try:
        return books.catalog.recipe(recipe)["output"]["artifact_name"]
    except (KeyError, NotFound):
        return None


def _training(books: Books, request: TrainingRequest) -> Spending:
    """What a training took, as its worker measured it; nothing while it has not trained, or found all of it done."""
    cell = f"{request.dataset}|{request.recipe}"
    record, plan = books.records.find(AdapterRecord, cell), books.records.find(PlanRecord, cell)
    if record is None or record.reused:
        return Spending()
    resources = plan.spec.get("resources", {}) if plan is not None else {}
    gpus = int(resources.get("gpus") or 0) * int(resources.get("nodes") or 1)
    if plan is not None and plan.device == "cuda" and gpus:
        return Spending(gpu_seconds=record.seconds * gpus)
    return Spending(cpu_seconds=record.seconds)


def _shown(books: Books, spent: Spending) -> dict[str, Any]:
    prices = books.prices
    return {**vars(spent), "kwh": spent.kwh(prices), "cost": spent.cost(prices), "currency": prices.currency}
