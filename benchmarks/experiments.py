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

from benchmarks.experiment_scenarios import scenario_table
from llmops_assets.experiments.analysis import Plan, analyse, plan_of
from llmops_assets.experiments.decision import decide
from llmops_assets.experiments.simulate import METHODS, Design, quiet_split_rates, rejection_rates
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
