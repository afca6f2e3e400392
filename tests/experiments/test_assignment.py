"""Assignment is sticky, moves users one way when a share is ramped, and keeps the shares it was asked for."""

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from llmops_assets.experiments.assignment import assign, bucket

users = st.text(min_size=1, max_size=40)
salts = st.text(min_size=1, max_size=20)
weights = st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=5).filter(lambda w: sum(w) > 1e-6)


def test_the_bucket_is_the_first_eight_bytes_of_the_digest() -> None:
    raw = hashlib.sha256("ab-1:홍길동".encode()).digest()[:8]
    assert bucket("ab-1", "홍길동") == pytest.approx(int.from_bytes(raw, "big") / 2**64, abs=2**-53)


@given(salts, users)
def test_a_bucket_lies_in_the_half_open_unit_interval(salt: str, user: str) -> None:
    assert 0 <= bucket(salt, user) < 1


def test_a_user_name_with_a_lone_surrogate_has_a_bucket() -> None:
    assert 0 <= bucket("s", "\ud800") < 1


@given(salts, users, weights)
def test_a_user_meets_the_same_variant_every_time_and_never_one_without_traffic(
    salt: str, user: str, weights: list[float]
) -> None:
    index = assign(salt, user, weights)
    assert index == assign(salt, user, weights)
    assert weights[index] > 0


def test_another_process_assigns_alike() -> None:
    code = (
        "from llmops_assets.experiments.assignment import assign\n"
        "print([assign('s', f'u{i}', [1, 1]) for i in range(64)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == str([assign("s", f"u{i}", [1, 1]) for i in range(64)])


@given(salts, users, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_ramp_moves_users_one_way_only(salt: str, user: str, first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert assign(salt, user, [1 - low, low]) <= assign(salt, user, [1 - high, high])


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.8, 0.2], [0.99, 0.01], [0.2, 0.3, 0.5]])
def test_shares_stay_within_binomial_limits(shares: list[float]) -> None:
    n = 20_000
    got = [assign("share-test", f"user-{i}", shares) for i in range(n)]
    for index, share in enumerate(shares):
        assert binomtest(got.count(index), n, share).pvalue > 1e-4


def test_two_experiments_draw_independently() -> None:
    n = 20_000
    same = sum(assign("one", f"u{i}", [1, 1]) == assign("two", f"u{i}", [1, 1]) for i in range(n))
    assert binomtest(same, n, 0.5).pvalue > 1e-4


@pytest.mark.parametrize("weights", [[], [0, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1]])
def test_weights_that_share_nothing_out_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        assign("s", "u", weights)
