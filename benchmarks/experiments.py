"""False alarms and power of the ways to decide an A/B test that is looked at again and again.

Run it with ``python -m benchmarks.experiments``; ``--rule 300`` also plays 300 experiments a row through the whole
decision rule, guardrails included.
"""

import argparse
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from llmops_assets.experiments.analysis import Plan, analyse, plan_of
from llmops_assets.experiments.decision import decide
from llmops_assets.experiments.inference import confidence_sequence
from llmops_assets.experiments.sequence import path_of
from llmops_assets.experiments.simulate import METHODS, Design, quiet_split_rates, rejection_rates
from llmops_assets.experiments.user_sums import UserSums, counted
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import load_policy

START = datetime(2026, 1, 5, tzinfo=UTC)
MODELS = ("a@1", "b@1")
PHASES = {1: [{"model_ref": model, "weight": 0.5} for model in MODELS]}
GAP = timedelta(minutes=1)


def traffic(
    rng: np.random.Generator, users: int, shift: float, slow: tuple[float, float], failed: tuple[float, float]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Exposures and feedback of users a minute apart with 4 requests each; slow and failed are shares by arm."""
    requests = 4
    arm = np.repeat(rng.integers(0, 2, users), requests)
    user = np.repeat(np.arange(users), requests)
    # Slowness and failures cluster by user: each user's own odds are a beta with the arm's mean.
    odds = [np.repeat(np.where(arm[::requests] == 1, *_betas(rng, rates, users)), requests) for rates in (slow, failed)]
    late, broken = (rng.random(len(arm)) < o for o in odds)
    level = 3.6 + shift * arm + np.repeat(rng.normal(0, 0.8, users), requests) + rng.normal(0, 1.0, len(arm))
    at = pl.Series([START]).dt.cast_time_unit("us").to_physical()[0] + user * int(GAP.total_seconds() * 1e6)
    exposures = pl.DataFrame(
        {
            "request_id": [f"{u}-{i}" for i, u in enumerate(user)],
            "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "phase": np.ones(len(arm), dtype=np.int64),
            "variant": arm,
            "user": pl.Series(user).cast(pl.String),
            "status": np.where(broken, 502, 200),
            "error": pl.Series([None] * len(arm), dtype=pl.String),
            "latency_ms": np.where(late, 3000.0, 500.0),
        }
    )
    feedback = exposures.select("request_id", "at", "user").with_columns(
        pl.Series("rating", np.clip(np.rint(level), 1, 5).astype(np.int64))
    )
    return exposures, feedback.filter(~pl.Series(broken))


def _betas(rng: np.random.Generator, rates: tuple[float, float], users: int) -> tuple[np.ndarray, np.ndarray]:
    control, treatment = (rng.beta(10 * r, 10 * (1 - r), users) if r > 0 else np.zeros(users) for r in rates)
    return treatment, control


def play(plan: Plan, exposures: pl.DataFrame, feedback: pl.DataFrame, every: int) -> tuple[str, int]:
    """Look after each `every` users until there is a decision: the outcome, and the users it took."""
    users = exposures["user"].n_unique()
    for n in range(every, users + 1, every):
        now = START + n * GAP
        decision = decide(analyse(exposures.filter(pl.col("at") < now), feedback, plan, PHASES, now))
        if decision.final:
            return decision.outcome, n
    return "continue", users


def rule_table(runs: int, users: int, seed: int) -> None:
    spec = ExperimentSpec(
        name="e", endpoint="e", control="a@1", treatment="b@1", duration_hours=2000, rating_window_hours=0.001
    )
    plan = plan_of(spec, load_policy().experiments, START)
    print(f"\nthe whole rule: {runs} runs a row, up to {users} users of both arms, a look every 100 users\n")
    print("| what differs | promote | rollback | invalid | goes on | median users | CPU-s |")
    print("|---|---|---|---|---|---|---|")
    for name, shift, slow, failed in (
        ("nothing", 0.0, (0.02, 0.02), (0.002, 0.002)),
        ("nothing, many slow and failed requests", 0.0, (0.3, 0.3), (0.05, 0.05)),
        ("rating + 0.2", 0.2, (0.02, 0.02), (0.002, 0.002)),
        ("rating - 0.2", -0.2, (0.02, 0.02), (0.002, 0.002)),
        ("rating + 0.2, slow requests 2 % to 10 %", 0.2, (0.02, 0.10), (0.002, 0.002)),
    ):
        rng, started = np.random.default_rng(seed), time.process_time()
        ends = [play(plan, *traffic(rng, users, shift, slow, failed), every=100) for _ in range(runs)]
        outcomes = Counter(outcome for outcome, _ in ends)
        shares = " | ".join(f"{outcomes[o] / runs:.1%}" for o in ("promote", "rollback", "invalid", "continue"))
        median = int(np.median([n for _, n in ends]))
        print(f"| {name} | {shares} | {median} | {time.process_time() - started:.0f} |", flush=True)


def split_table(runs: int, seed: int) -> None:
    """How often a split is ever quiet enough for a promotion, by the share of the treatment's users that is lost."""
    at = (400, 600, 1000, 2000, 4000)
    print(f"\nwhether a promotion is let through by the split: {runs} runs a row, a look every 20 users from 400 on\n")
    print(f"| lost | proven broken only | {' | '.join(f'quiet within {n:,} users' for n in at)} |")
    print(f"|---|---|{'---|' * len(at)}")
    for lost in (0.0, 0.05, 0.1, 0.17, 0.3):
        rates = quiet_split_rates(lost, runs=runs, users=at, seed=seed)
        print(f"| {lost:.0%} | {rates.unproven:.1%} | {' | '.join(f'{r:.1%}' for r in rates.quiet)} |", flush=True)


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
    if kind == "one user gives 3,000 fives":
        fan = (found["arm"] == 1).arg_true()[0]
        found = found.with_columns(
            pl.when(pl.int_range(pl.len()) == fan).then(3000).otherwise("ratings").alias("ratings"),
            pl.when(pl.int_range(pl.len()) == fan).then(15_000.0).otherwise("total").alias("total"),
        )
    return UserSums.of(found)


SCENARIOS = (
    "4 ratings a user",
    "Pareto numbers of ratings",
    "one user gives 3,000 fives",
    "split 90:10",
    "ramp 90:10 to 50:50",
)


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
                for effect in path_of(totals, 10, 60):
                    least = min(sum(getattr(s, a).users for s in effect.strata) for a in ("control", "treatment"))
                    at = confidence_sequence(effect.difference, effect.se, effect.users, 400)
                    if least >= 200 and not at.low <= 0 <= at.high:
                        ends["promote" if at.low > 0 else "rollback"] += 1
                        break
            cells += [ends["promote"] / runs, ends["rollback"] / runs]
        used = time.process_time() - started
        print(f"| {kind} | {cells[0]:.1%} | {cells[1]:.1%} | {cells[2]:.1%} | {used:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulated experiments per row")
    parser.add_argument("--users", type=int, default=2000, help="users of each arm at the end")
    parser.add_argument(
        "--expected", type=int, nargs="*", default=[400, 2000], help="N*: users of both arms at decision"
    )
    parser.add_argument("--rule", type=int, default=0, help="experiments per row played through the whole rule")
    parser.add_argument("--split", type=int, default=0, help="simulated splits per row, and nothing else")
    parser.add_argument("--scenarios", type=int, default=0, help="experiments per row of `SCENARIOS`, and nothing else")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.scenarios:
        scenario_table(options.scenarios, options.users, options.seed)
        return
    if options.split:
        split_table(options.split, options.seed)
        return

    print(f"{options.runs} runs a row, 4 ratings (1-5) a user, a look every 10 users an arm up to {options.users}")
    print("share of runs that end significant at .05: at any look (at the last look only)\n")
    print(f"| shift | N* | {' | '.join(METHODS)} | CPU-s |")
    print(f"|---|---|{'---|' * len(METHODS)}---|")
    for shift in (0.0, 0.1, 0.2):
        for expected in options.expected:
            started = time.process_time()
            design = Design(users=options.users, shift=shift)
            rates = rejection_rates(design, runs=options.runs, seed=options.seed, expected_n=expected)
            cells = " | ".join(f"{rates.peeking[m]:.1%} ({rates.once[m]:.1%})" for m in METHODS)
            print(f"| {shift} | {expected} | {cells} | {time.process_time() - started:.0f} |", flush=True)
    if options.rule:
        rule_table(options.rule, options.users, options.seed)


if __name__ == "__main__":
    main()
