"""Intervals against statsmodels, scipy and closed forms."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from hemascope.metrics import intervals as statistics
from hemascope.metrics.intervals import bootstrap, exact_interval, reflect_interval, wilson
from hemascope.records import Estimate


@pytest.mark.parametrize("n", [1, 2, 9, 640, 100_000])
def test_wilson_agrees_with_statsmodels(n):
    for successes in {0, 1, n // 3, n - 1, n}:
        found = wilson(successes, n)
        expected = proportion_confint(successes, n, method="wilson")
        assert found.value == successes / n
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_of_nothing_is_undefined():
    found = wilson(0, 0)
    assert (found.successes, found.n) == (0, 0)
    assert found.value is found.low is found.high is None


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, -1), (1, 0)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(successes, n)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 100, 0, 3.62),
        (1, 100, 0.03, 5.45),
        (5, 100, 1.64, 11.28),
        (50, 100, 39.83, 60.17),
        (2, 200, 0.12, 3.57),
        (6, 200, 1.11, 6.42),
    ],
)
def test_exact_interval_is_that_of_the_tables(successes, n, low, high):
    found = exact_interval(successes, n)
    assert (100 * found.low, 100 * found.high) == pytest.approx((low, high), abs=0.005)


@pytest.mark.parametrize("n", [1, 2, 9, 640, 100_000])
def test_exact_interval_is_scipys(n):
    for successes in {0, 1, n // 3, n // 2, n - 1, n}:
        expected = stats.binomtest(successes, n).proportion_ci(method="exact")
        found = exact_interval(successes, n)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_exact_interval_of_nothing_is_undefined_and_impossible_counts_are_refused():
    assert exact_interval(0, 0).value is exact_interval(0, 0).high is None
    with pytest.raises(ValueError, match="not a proportion"):
        exact_interval(4, 3)


def test_a_share_is_bootstrapped_as_the_binomial():
    right = np.arange(200) < 170
    (found,) = bootstrap(lambda weights: weights @ right[:, None] / 200, 200, resamples=20_000)
    assert (found.value, found.n) == (0.85, 200)
    # One image is 0.005; the quantiles of 20,000 draws may fall one image beside the binomial's.
    expected = stats.binom(200, 0.85).ppf([0.025, 0.975]) / 200
    assert (found.low, found.high) == pytest.approx(expected, abs=0.0051)


def test_percentiles_agree_with_scipy():
    values = np.random.default_rng(5).lognormal(size=60)
    (found,) = bootstrap(lambda weights: weights @ values[:, None] / 60, 60, resamples=20_000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.02 * width)


def test_resamples_in_which_a_figure_is_undefined_are_left_out():
    def first_among_drawn(weights):  # 1 where image 0 is drawn, undefined where it is not
        with_first = np.where(weights[:, 0] > 0, 1.0, np.nan)
        never = np.full(len(weights), np.nan)
        only_at_first = np.where((weights == 1).all(axis=1), 1.0, np.nan)
        return np.stack([with_first, never, only_at_first], axis=1)

    assert bootstrap(first_among_drawn, 50) == (
        Estimate(1.0, 50, 1.0, 1.0),
        Estimate(None, 0, None, None),
        Estimate(1.0, 50, None, None),
    )


def test_the_interval_does_not_depend_on_the_block_size(monkeypatch):
    def mean_place(weights):
        return weights @ np.arange(30.0)[:, None] / 30

    at_once = bootstrap(mean_place, 30, resamples=100)
    monkeypatch.setattr(statistics, "BLOCK", 7 * 30)
    assert bootstrap(mean_place, 30, resamples=100) == at_once
    assert bootstrap(mean_place, 30, resamples=100, seed=1) != at_once


@pytest.mark.parametrize(("n", "resamples"), [(-1, 10), (10, 0)])
def test_bootstrap_refuses_impossible_sizes(n, resamples):
    with pytest.raises(ValueError, match="cannot draw"):
        bootstrap(lambda weights: weights, n, resamples)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.08, 0.15), (0.05, 0.12)),
        ((0.09, 0.30), (0.0, 0.11)),  # cut at 0
        ((0.12, 0.18), (0.02, 0.10)),  # widened to the value
        ((0.02, 0.08), (0.10, 0.18)),
        ((None, None), (None, None)),
    ],
)
def test_reflected(interval, expected):
    found = reflect_interval(Estimate(0.1, 50, *interval))
    assert (found.value, found.n) == (0.1, 50)
    assert (found.low, found.high) == pytest.approx(expected)
