"""Intervals, macro-F1, perplexity and McNemar's test, against published values and other libraries."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_assets.evaluation import metrics as m


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe 1998, table I, method 3 (the score interval without continuity correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_is_that_of_newcombe(right: int, n: int, low: float, high: float) -> None:
    estimate = m.wilson(right, n)
    assert estimate.low == pytest.approx(low, abs=5e-5) and estimate.high == pytest.approx(high, abs=5e-5)


def test_a_lower_bound_of_090_on_300_items_needs_281_right() -> None:
    assert m.wilson(280, 300).low < 0.9 <= m.wilson(281, 300).low


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_inside_0_and_1(case: tuple[int, int]) -> None:
    right, n = case
    e = m.wilson(right, n)
    assert 0 <= e.low <= e.value <= e.high <= 1


def test_there_is_no_accuracy_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        m.wilson(0, 0)
    with pytest.raises(ValueError, match="nothing to resample"):
        m.bootstrap(lambda index: 0.0, 0)


def test_macro_f1_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(5)
    labels = ["환불", "통행료", "휴게소", "분실물"]
    expected = [labels[i] for i in generator.integers(0, 4, 300)]
    said = [e if generator.random() < 0.7 else ([*labels, "헛소리"])[generator.integers(0, 5)] for e in expected]
    theirs = f1_score(expected, said, labels=sorted(set(expected)), average="macro")
    ours = m.macro_f1(expected, said)
    assert ours.value == pytest.approx(theirs)
    assert ours.low < ours.value < ours.high
    assert m.macro_f1(expected, said) == ours, "the same seed gives the same interval"


def test_perplexity_weighs_tokens_not_documents() -> None:
    estimate = m.perplexity([math.log(2) * 10, math.log(8) * 30, 0.0], [10, 30, 0])
    assert estimate.value == pytest.approx(math.exp((math.log(2) * 10 + math.log(8) * 30) / 40))
    assert estimate.n == 2 and 2 - 1e-9 <= estimate.low <= estimate.value <= estimate.high <= 8 + 1e-9
    assert m.bits_per_byte([math.log(2) * 8], [4]).value == pytest.approx(2)
    assert m.perplexity([1e6], [1]).value == math.inf
    with pytest.raises(ValueError, match="no document has a token"):
        m.perplexity([0.0], [0])


def test_mcnemar_is_the_exact_binomial_test() -> None:
    from scipy.stats import binomtest

    first = [True] * 25 + [False] * 11 + [True] * 60 + [False] * 4
    second = [False] * 25 + [True] * 11 + [True] * 60 + [False] * 4
    test = m.mcnemar(first, second)
    assert (test.only_first, test.only_second, test.both, test.neither) == (25, 11, 60, 4)
    assert test.p == pytest.approx(binomtest(11, 36).pvalue)
    assert m.mcnemar(second, first).p == test.p
    assert m.mcnemar([True, False], [True, False]).p == 1
    assert m.mcnemar([True] * 5000, [False] * 5000).p == 0
    with pytest.raises(ValueError, match="pairs answers"):
        m.mcnemar([True], [])
