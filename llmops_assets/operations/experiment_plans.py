"""Plans of experiments: what an endpoint's traffic could show, and how long it would take."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from llmops_assets.experiments.planning import Simulated, Traffic

USUAL_SPREAD = 1.0
"""Spread between users' mean ratings (1 to 5) where nothing was measured; about what ratings of chats show."""


@dataclass(frozen=True)
class TestPlan:
    """How many users and days a test needs; what is None could not be told from what was given.

    fixed_users: of both arms, for one look at the end; simulated: the sequential rule on as many users as come within
    `days`, and null the same without any effect; smallest_effect: what is found with that power within `days`.
    """

    __test__ = False
    traffic: "Traffic | None"
    sd: float
    sd_from: str
    users_per_day: float | None
    days: float | None
    users: int | None
    effect: float | None
    power: float
    alpha: float
    fixed_users: int | None
    simulated: "Simulated | None"
    null: "Simulated | None"
    median_days: float | None
    smallest_effect: float | None


def plan_experiment(
    wiring: Wiring,
    *,
    endpoint: str | None,
    effect: float | None,
    sd: float | None,
    users_per_day: float | None,
    days: float | None,
    share: float,
    alpha: float | None,
    power: float,
    minimum_effect: float | None,
    expected_users: int | None,
) -> TestPlan:
    """Power and duration for an effect, and the least effect that could be found in the traffic that there is.

    Users are those who rate. What is not given is measured on the endpoint, where one is named. Raises NotFound, or
    Refused when neither an effect nor a number of users is known.
    """
    from llmops_assets.experiments.planning import TestDesign, fixed_horizon_users, simulate, smallest_effect

    policy = wiring.policy.experiments
    level = policy.alpha if alpha is None else alpha
    if not 0 < power < 1 or not 0 < level < 1 or not 0 < share < 1:
        raise Refused(f"power, alpha and share lie between 0 and 1; got {power:g}, {level:g} and {share:g}")
    traffic = _traffic(wiring, endpoint) if endpoint is not None else None
    measured = traffic.sd if traffic is not None and traffic.users_who_rated >= 2 else None
    spread = sd if sd is not None else measured or USUAL_SPREAD
    source = "given" if sd is not None else f"measured on {endpoint}" if measured else "assumed"
    per_day = users_per_day if users_per_day is not None else traffic.raters_per_day if traffic else None
    if effect is None and (per_day is None or days is None):
        raise Refused("say --effect, or --days and the users of a day (--users-per-day, or --endpoint with traffic)")
    if effect == 0:
        raise Refused("no number of users finds an effect of 0: say the least difference that matters")
    fixed = None
    if effect is not None:
        fixed = fixed_horizon_users(effect, spread, alpha=level, power=power, share=share)
    # A sequential test needs about half as many again as one look would; three times as many show where it ends.
    users = int(per_day * days) if per_day is not None and days is not None else 3 * fixed if fixed else None
    if users is None or users < 4:
        raise Refused(f"{users or 0} users would come: too few for a test")
    expected = expected_users or max(2 * policy.users_per_arm, min(users, fixed or users))
    design = TestDesign(effect or 0.0, spread, users, policy.users_per_arm, expected, share, level, minimum_effect)
    null = simulate(replace(design, effect=0.0))
    found = simulate(design) if effect is not None else None
    median = found.median_users if found else None
    return TestPlan(
        traffic=traffic,
        sd=spread,
        sd_from=source,
        users_per_day=per_day,
        days=days,
        users=users,
        effect=effect,
        power=power,
        alpha=level,
        fixed_users=fixed,
        simulated=found,
        null=null,
        median_days=median / per_day if median and per_day else None,
        smallest_effect=smallest_effect(design, power) if days is not None and per_day is not None else None,
    )


def _traffic(wiring: Wiring, endpoint: str) -> "Traffic":
    import polars as pl

    from llmops_assets.experiments.planning import traffic_of

    wiring.catalog.endpoint(endpoint)
    names = ["", *(e.name for e in wiring.catalog.experiments() if e.endpoint == endpoint)]
    return traffic_of(pl.concat([wiring.catalog.user_statistics(endpoint=endpoint, experiment=n) for n in names]))
