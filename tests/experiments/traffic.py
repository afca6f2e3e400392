"""Traffic of an experiment, made up user by user with the gateway's own assignment."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from llmops_assets.experiments.analysis import Plan, Routes, plan_of
from llmops_assets.experiments.assignment import assign
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import load_policy

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
CONTROL, TREATMENT = "desk-base@1", "desk-tuned@2"
EXPOSURES = {
    "request_id": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "endpoint": pl.String,
    "experiment": pl.String,
    "phase": pl.Int64,
    "variant": pl.Int64,
    "backend": pl.String,
    "model_ref": pl.String,
    "user": pl.String,
    "session": pl.String,
    "query": pl.String,
    "response": pl.String,
    "status": pl.Int64,
    "error": pl.String,
    "latency_ms": pl.Float64,
    "ttft_ms": pl.Float64,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "finish_reason": pl.String,
}
FEEDBACK = {"request_id": pl.String, "at": pl.Datetime("us", "UTC"), "user": pl.String, "rating": pl.Int64}


def routes(control: float = 0.5, treatment: float = 0.5) -> list[dict]:
    return [
        {"backend_id": "b-control", "model_ref": CONTROL, "weight": control},
        {"backend_id": "b-treatment", "model_ref": TREATMENT, "weight": treatment},
    ]


def spec(**changes) -> ExperimentSpec:
    values = {
        "name": "base-or-tuned",
        "endpoint": "desk",
        "control": CONTROL,
        "treatment": TREATMENT,
        "duration_hours": 48,
        "rating_window_hours": 1,
    }
    return ExperimentSpec.model_validate(values | changes)


def plan(**changes) -> Plan:
    return plan_of(spec(**changes), load_policy().experiments, START)


def traffic(
    users: int,
    *,
    seed: int = 0,
    phase: int = 1,
    table: Routes | None = None,
    requests: int = 4,
    levels: tuple[float, float] = (3.6, 3.6),
    slow: tuple[float, float] = (0.0, 0.0),
    failed: tuple[float, float] = (0.0, 0.0),
    response_rate: float = 0.9,
    start: datetime = START,
    gap: timedelta = timedelta(seconds=20),
    first_user: int = 0,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Exposures and feedback of `users` users who arrive `gap` apart; levels, slow and failed are (control, treatment).

    A user's answers are rated with the arm's level plus the user's own and some noise, rounded to 1-5.
    """
    rng = np.random.default_rng(seed)
    table = routes() if table is None else table
    exposures, feedback = [], []
    for number in range(first_user, first_user + users):
        user = f"user-{number}"
        variant = assign("salt", user, [r["weight"] for r in table])
        model = table[variant]["model_ref"]
        arm = int(model == TREATMENT)
        own = rng.normal(0, 0.6)
        arrival = start + (number - first_user) * gap
        for k in range(requests):
            at, request = arrival + timedelta(seconds=30 * k), f"r-{phase}-{number}-{k}"
            fails, late = rng.random() < failed[arm], rng.random() < slow[arm]
            exposures.append(
                {
                    "request_id": request,
                    "at": at,
                    "endpoint": "desk",
                    "experiment": "base-or-tuned",
                    "phase": phase,
                    "variant": variant,
                    "backend": table[variant]["backend_id"],
                    "model_ref": model,
                    "user": user,
                    "status": 502 if fails else 200,
                    "error": "the server is gone" if fails else None,
                    "latency_ms": float(rng.uniform(2500, 4000) if late else rng.uniform(100, 900)),
                }
            )
            if not fails and rng.random() < response_rate:
                rating = int(np.clip(np.rint(levels[arm] + own + rng.normal(0, 0.9)), 1, 5))
                feedback.append(
                    {"request_id": request, "at": at + timedelta(seconds=10), "user": user, "rating": rating}
                )
    return pl.DataFrame(exposures, schema=EXPOSURES, orient="row"), pl.DataFrame(
        feedback, schema=FEEDBACK, orient="row"
    )
