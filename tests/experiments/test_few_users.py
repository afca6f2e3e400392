"""A margin that the expected users cannot show is named when a test starts, as the guardrail itself would find it."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from llmops_assets.experiments.guardrails import fewest_users, guardrails, too_few_users
from llmops_assets.experiments.plan import FAILED, SLOW, Plan
from llmops_assets.experiments.user_sums import Counted
from llmops_assets.specs.policy import load_policy

POLICY = load_policy().experiments
PLAN = Plan(
    "t", "a@1", "b@1", None, None, timedelta(hours=1), 200, 400, 0.05, 0.001, 1000.0, {FAILED: 0.01, SLOW: 0.05}
)


def spotless(users: int, control_share: float) -> Counted:
    """Users who asked once each, none of whom had a bad request."""
    arm = np.zeros(users, dtype=int)
    arm[round(users * control_share) :] = 1
    zero, one = np.zeros(users), np.ones(users)
    rows = {"code": np.arange(users), "stratum": zero, "arm": arm, "failed": zero, "counted": one, "slow": zero}
    return Counted(pl.DataFrame(rows | {"timed": one}), inconstant=0, movers=0)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("expected", [400, 2000])
@pytest.mark.parametrize("margin", [0.01, 0.019, 0.05])
def test_the_guardrail_closes_with_the_fewest_users_and_not_with_fewer(share, expected, margin):
    plan = replace(PLAN, expected_users=expected, margins={FAILED: margin})
    needed = fewest_users(plan, margin, share)
    (enough,) = guardrails(spotless(needed, share), plan, 2)
    # Two less, not one: an arm has whole users.
    (short,) = guardrails(spotless(needed - 20, share), plan, 2)
    assert enough.non_inferior and not short.non_inferior


def test_what_keeps_a_test_from_a_promotion_is_said_with_the_users_that_it_takes():
    (note,) = too_few_users(PLAN)
    assert "failed_requests" in note and "866 users" in note and "400 are expected" in note
    assert too_few_users(replace(PLAN, expected_users=1000)) == []
    (never,) = too_few_users(replace(PLAN, margins={SLOW: 0.0}))
    assert "no number of users" in never
    assert {FAILED: POLICY.guardrails.failed_requests.margin} == {FAILED: PLAN.margins[FAILED]}, "as it is shipped"
