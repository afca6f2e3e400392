"""The sums that experiments rest on are those of the rows, whatever the order in which the rows were written."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from resources.catalog import Catalog, tables
from tests.resources.samples import experiment, exposure

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
WINDOW = 3600.0
SLOW = 2000.0
OUTCOMES = [(200, None)] * 6 + [(200, "b1 is gone; b2 answered instead"), (502, "x"), (400, "x"), (404, None)]
OUTCOMES += [(429, "x"), (499, "the client went away"), (499, "the client went away")]


def traffic(seed: int) -> tuple[list[dict], list[dict]]:
    """Requests and ratings of some users with everything that decides whether they count."""
    rng = random.Random(seed)
    exposures, feedback = [], []
    for number in range(120):
        user = f"u{rng.randrange(12)}"
        status, error = rng.choice(OUTCOMES)
        at = START + timedelta(minutes=rng.uniform(0, 26 * 60))
        source = rng.choice([None, "model", "model", "cache", "fallback"])
        row = exposure(
            f"r{number}",
            at=at,
            experiment=rng.choice(["base-or-tuned", "base-or-tuned", None]),
            phase=rng.randint(1, 2),
            variant=rng.randint(0, 1),
            user=user,
            status=status,
            error=error,
            source=source,
            latency_ms=rng.choice([100.0, 2500.0, 1999.5]),
            prompt_tokens=rng.choice([None, 7]),
            completion_tokens=rng.choice([None, 3]),
        )
        exposures.append(row)
        for _ in range(rng.choice([0, 0, 1, 2, 3])):
            feedback.append(
                {
                    "request_id": row["request_id"],
                    "at": at + timedelta(seconds=rng.uniform(0, 2 * WINDOW)),
                    "user": rng.choice([user, user, None, "somebody else"]),
                    "rating": rng.randint(1, 5),
                    "event": f"e{len(feedback)}",
                }
            )
    return exposures, feedback


def counted(exposures: list[dict], feedback: list[dict], name: str, slow_ms: float = SLOW) -> dict[tuple, dict]:
    """The sums by (user, phase, variant), row by row: what the statistics have to be."""
    ends_at = START + timedelta(hours=24) if name else None
    rows = [
        r
        for r in exposures
        if (r["experiment"] or "") == name and r["source"] != "cache" and (ends_at is None or r["at"] <= ends_at)
    ]
    first = {user: min(r["at"] for r in rows if r["user"] == user) for user in {r["user"] for r in rows}}
    sums: dict[tuple, dict] = defaultdict(lambda: defaultdict(int))
    for r in rows:
        own = sums[r["user"], r["phase"], r["variant"]]
        failed = r["status"] >= 500 or r["status"] in (408, 429) or (r["error"] is not None and r["status"] < 400)
        late = r["latency_ms"] > slow_ms
        timed = not failed and (r["status"] < 400 or (r["status"] == 499 and late))
        own["requests"] += 1
        own["judged"] += failed or r["status"] not in (400, 404)
        own["failed"] += failed
        own["fallbacks"] += r["source"] == "fallback"
        own["timed"] += timed
        own["slow"] += timed and late
        own["latency_sum"] += timed * r["latency_ms"]
        own["latency_squares"] += timed * r["latency_ms"] ** 2
        own["prompt_tokens"] += r["prompt_tokens"] or 0
        own["completion_tokens"] += r["completion_tokens"] or 0
        last = None
        for f in sorted((f for f in feedback if f["request_id"] == r["request_id"]), key=lambda f: f["at"]):
            if r["source"] == "fallback":
                continue
            if f["user"] not in (None, r["user"]):
                own["foreign_ratings"] += 1
            elif not name or (f["at"] - first[r["user"]]).total_seconds() <= WINDOW:
                last = f["rating"]
        if last is not None:
            own[f"rated_{last}"] += 1
    return sums


def kept(catalog: Catalog, name: str, **more) -> dict[tuple, dict]:
    frame = catalog.user_statistics(endpoint="desk", experiment=name, **more)
    return {(r["user"], r["phase"], r["variant"]): r for r in frame.rows(named=True)}


def assert_equal(found: dict[tuple, dict], wanted: dict[tuple, dict]) -> None:
    assert found.keys() == wanted.keys()
    for key, row in found.items():
        for column, value in row.items():
            if column not in ("user", "phase", "variant", "first_at", "last_at"):
                assert value == pytest.approx(wanted[key][column]), (key, column)


def started(catalog: Catalog) -> None:
    catalog.create_experiment(experiment(rating_window_hours=WINDOW / 3600))
    with catalog.database.write("test") as transaction:
        transaction.execute(tables.experiments.update().values(started_at=START))


@pytest.mark.parametrize("seed", [1, 2])
def test_sums_are_those_of_the_rows_in_whatever_order_and_however_often_they_come(catalog: Catalog, seed: int):
    started(catalog)
    exposures, feedback = traffic(seed)
    rng = random.Random(seed)
    pieces = [("exposure", row) for row in exposures] + [("feedback", row) for row in feedback]
    pieces += rng.sample(pieces, 60)
    rng.shuffle(pieces)
    written = [0, 0]
    while pieces:
        size = rng.randint(1, 40)
        batch, pieces = pieces[:size], pieces[size:]
        new = catalog.add_traffic(*([row for kind, row in batch if kind == k] for k in ("exposure", "feedback")))
        written = [a + b for a, b in zip(written, new, strict=True)]
    assert catalog.add_traffic(exposures, feedback) == (0, 0)
    assert written == [len(exposures), len(feedback)]
    assert catalog.request_count(endpoint="desk") == len(exposures)
    assert catalog.feedback().height == len(feedback)
    for name in ("base-or-tuned", ""):
        assert_equal(kept(catalog, name), counted(exposures, feedback, name))
    firsts = catalog.user_statistics(endpoint="desk", experiment="base-or-tuned")
    assert firsts["first_at"].min() >= START and (firsts["first_at"] <= firsts["last_at"]).all()


def test_another_threshold_or_an_extended_experiment_makes_them_anew(catalog: Catalog):
    started(catalog)
    exposures, feedback = traffic(3)
    catalog.add_traffic(exposures, feedback)
    assert_equal(kept(catalog, "base-or-tuned", slow_ms=50.0), counted(exposures, feedback, "base-or-tuned", 50.0))
    # What comes afterwards is counted by the same plan, also by a writer that knows another.
    late = exposure("late", at=START, user="u1", latency_ms=60.0, source="model")
    catalog.add_exposures([late])
    with_late = counted([*exposures, late], feedback, "base-or-tuned", 50.0)
    assert_equal(kept(catalog, "base-or-tuned"), with_late)
    with catalog.database.write("test") as transaction:
        spec = {**experiment(rating_window_hours=1).model_dump(mode="json"), "duration_hours": 48.0}
        transaction.execute(tables.experiments.update().values(spec=spec))
    assert sum(r["requests"] for r in kept(catalog, "base-or-tuned").values()) == sum(
        r["experiment"] is not None and r["source"] != "cache" for r in [*exposures, late]
    )


def test_an_earlier_catalog_gets_the_sums_of_its_rows_and_goes_back(catalog: Catalog):
    started(catalog)
    exposures, feedback = traffic(4)
    # Of before: which model answered stands in the row, and which was assigned in the phase.
    routes = [{"backend_id": f"b{n}", "model_ref": f"m{n}@1", "weight": 1} for n in range(2)]
    with catalog.database.write("test") as transaction:
        for phase in (1, 2):
            transaction.execute(tables.phases.insert().values(endpoint="desk", phase=phase, routes=routes, at=START))
    for row in exposures:
        row["source"] = "fallback" if row["source"] == "fallback" else "model"
        answered = 1 - row["variant"] if row["source"] == "fallback" else row["variant"]
        row["model_ref"] = f"m{answered}@1"
    catalog.add_traffic(exposures, feedback)
    catalog.database.migrate("0005")
    catalog.database.migrate()
    for name in ("base-or-tuned", ""):
        assert_equal(kept(catalog, name), counted(exposures, feedback, name))
    with catalog.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.exposures)).scalar() == 120


def test_of_two_who_rate_one_answer_at_once_one_counts(catalog: Catalog):
    from tests.resources.test_writers import together

    catalog.add_exposures([exposure("r1", experiment=None)])
    together(lambda number: catalog.add_feedback("r1", 1 + number % 5))
    (row,) = kept(catalog, "").values()
    assert sum(row[f"rated_{n}"] for n in range(1, 6)) == 1
