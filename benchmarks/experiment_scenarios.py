"""What makes comparisons of ratings err, simulated: how often the deciding rule promotes without a difference."""

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from llmops_assets.experiments.analysis import analyse_sums, plan_of
from llmops_assets.experiments.decision import decide
from llmops_assets.experiments.inference import confidence_sequence
from llmops_assets.experiments.sequence import path_of
from llmops_assets.experiments.user_sums import UserSums, counted
from llmops_assets.experiments.variance_floor import floored
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import load_policy

START = datetime(2026, 1, 5, tzinfo=UTC)
WINDOW = 600
"""Minutes in which a rating counts, of the scenarios with late ratings."""


def scenario(rng: np.random.Generator, kind: str, users: int, shift: float) -> UserSums:
    """One experiment of `users` users, with what makes comparisons err: `kind` of `SCENARIOS`."""
    share = 0.1 if kind == "split 90:10" else 0.5
    place = rng.random(users)
    ratings = np.minimum(1 + rng.pareto(1.1, users), 3000).astype(int) if "Pareto" in kind else np.full(users, 4)
    own = rng.normal(3.6, 0.8, users)

    def rows(phase: int, edge: float, drift: float, who: np.ndarray) -> pl.DataFrame:
        arm = (place[who] >= edge).astype(np.int64)
        n = ratings[who]
        # The mean of n ratings of one user; what one phase adds, it adds to both arms.
        mean = own[who] + drift + shift * arm + rng.normal(0, 1, len(who)) / np.sqrt(n)
        total = np.clip(mean, 1, 5) * n
        at = np.datetime64("2026-01-05T00:00:00") + (phase * 10 * users + who).astype("timedelta64[m]")
        return pl.DataFrame(
            {
                "user": [f"u{u}" for u in who],
                "phase": np.full(len(who), phase),
                "arm": arm,
                "requests": n,
                "ratings": n,
                "total": total,
                "first_at": pl.Series(at.astype("datetime64[us]")).dt.replace_time_zone("UTC"),
            }
        )

    everyone = np.arange(users)
    if kind == "ramp 90:10 to 50:50":
        # Half of the users of the first phase come back in the second, in which everybody rates higher.
        first, again = everyone[: users // 2], rng.random(users // 2) < 0.5
        second = np.concatenate([first[again], everyone[users // 2 :]])
        return UserSums.of(pl.concat([rows(1, 0.9, 0.0, first), rows(2, 0.5, 0.7, second)]))
    found = rows(1, 1 - share, 0.0, everyone)
    if "nineteen" in kind:
        # A ceiling: hardly anything varies, and what the treatment adds can only be fewer of the rare bad ratings.
        value = np.where(rng.random(users) < 0.05 * (1 - 2 * shift * found["arm"].to_numpy()), 1.0, 5.0)
        return UserSums.of(
            found.with_columns(pl.Series("ratings", np.ones(users, dtype=int)), pl.Series("total", value))
        )
    if kind == "one user gives 3,000 fives":
        fan = (found["arm"] == 1).arg_true()[0]
        found = found.with_columns(
            pl.when(pl.int_range(pl.len()) == fan).then(3000).otherwise("ratings").alias("ratings"),
            pl.when(pl.int_range(pl.len()) == fan).then(15_000.0).otherwise("total").alias("total"),
        )
    return UserSums.of(found)


def late(users: int, shift: float, rng: np.random.Generator) -> tuple[UserSums, np.ndarray]:
    """Users a minute apart whose one rating comes at once, but for the unhappy users of the treatment: these wait for
    most of the window. With the sums of all, the minutes after which each rated."""
    arm = rng.integers(0, 2, users)
    value = np.clip(np.rint(rng.normal(3.6, 0.8, users) + shift * arm + rng.normal(0, 1, users)), 1, 5)
    waits = np.where((arm == 1) & (value <= 3), 0.9 * WINDOW, 1.0)
    at = np.datetime64("2026-01-05T00:00:00") + np.arange(users).astype("timedelta64[m]")
    rows = pl.DataFrame(
        {
            "user": [f"u{u}" for u in range(users)],
            "phase": np.ones(users, dtype=np.int64),
            "arm": arm,
            "requests": np.ones(users, dtype=np.int64),
            "ratings": np.ones(users, dtype=np.int64),
            "total": value,
            "first_at": pl.Series(at.astype("datetime64[us]")).dt.replace_time_zone("UTC"),
        }
    )
    return UserSums.of(rows), np.arange(users) + waits


def decided_late(rng: np.random.Generator, users: int, shift: float, window: int, looks: int) -> str:
    """How a test ends whose ratings come late, looked at `looks` times; `window` in minutes, 0 to count them as they
    come."""
    sums, rated_at = late(users, shift, rng)
    spec = ExperimentSpec(
        name="e", endpoint="e", control="a@1", treatment="b@1", duration_hours=10_000, rating_window_hours=1
    )
    plan = replace(plan_of(spec, load_policy().experiments, START), margins={}, rating_window=timedelta(minutes=window))
    for minute in np.linspace(400, users + WINDOW, looks, dtype=int):
        here, there = pl.Series(np.arange(users) < minute), pl.Series(rated_at <= minute)
        frame = sums.frame.with_columns(pl.when(there).then(pl.col(c)).otherwise(0) for c in ("ratings", "total"))
        found = analyse_sums(
            UserSums(frame.filter(here)), plan, {1: (0.5, 0.5)}, START + timedelta(minutes=int(minute))
        )
        if (decision := decide(found)).final:
            return decision.outcome
    return "continue"


SCENARIOS = (
    "4 ratings a user",
    "Pareto numbers of ratings",
    "one user gives 3,000 fives",
    "nineteen of twenty always give 5",
    "split 90:10",
    "ramp 90:10 to 50:50",
)
LATE = {"unhappy users of the treatment rate late": WINDOW, "the same, counted as they come (not our rule)": 0}


def scenario_table(runs: int, users: int, seed: int) -> None:
    """How often the deciding sequence ever promotes, at 60 looks, with no difference and with one of .2."""
    print(f"\nthe deciding sequence: {runs} runs a row, {users} users, 60 looks, no decision before 200 an arm\n")
    print("| what the ratings are like | promoted with no difference | rolled back | promoted at + 0.2 | CPU-s |")
    print("|---|---|---|---|---|")
    for kind in SCENARIOS:
        started, cells = time.process_time(), []
        for shift in (0.0, 0.2):
            rng, ends = np.random.default_rng(seed), Counter[str]()
            for _ in range(runs):
                totals = counted(scenario(rng, kind, users, shift)).totals("total", "ratings")
                for found in path_of(totals, 10, 60):
                    effect = floored(found, totals, (1, 5))
                    least = min(sum(getattr(s, a).users for s in effect.strata) for a in ("control", "treatment"))
                    at = confidence_sequence(effect.difference, effect.se, effect.users, 400)
                    if least >= 200 and not at.low <= 0 <= at.high:
                        ends["promote" if at.low > 0 else "rollback"] += 1
                        break
            cells += [ends["promote"] / runs, ends["rollback"] / runs]
        used = time.process_time() - started
        print(f"| {kind} | {cells[0]:.1%} | {cells[1]:.1%} | {cells[2]:.1%} | {used:.0f} |", flush=True)
    for kind, window in LATE.items():
        started, rows = time.process_time(), []
        for shift in (0.0, 0.2):
            rng = np.random.default_rng(seed)
            rows.append(Counter(decided_late(rng, users, shift, window, 20) for _ in range(runs)))
        cells = [rows[0]["promote"] / runs, rows[0]["rollback"] / runs, rows[1]["promote"] / runs]
        used = time.process_time() - started
        print(f"| {kind}, 20 looks | {cells[0]:.1%} | {cells[1]:.1%} | {cells[2]:.1%} | {used:.0f} |", flush=True)
