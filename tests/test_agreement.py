"""Comparing two measurements of the same samples, against libraries and examples."""

from __future__ import annotations

from itertools import combinations
from math import isnan

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from hemascope.metrics.agreement import (
    chance_of_difference,
    chance_of_pairs,
    cohen_kappa,
    into_categories,
    limits_of_agreement,
    passing_bablok,
    t_quantile,
    weighted_kappa,
)

# Peak expiratory flow of 17 people by a large and a small meter: Bland and Altman (1986), table 1.
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
SMALL = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_limits_of_agreement_are_those_that_bland_and_altman_print() -> None:
    found = limits_of_agreement(SMALL, LARGE)
    assert found.bias.value == pytest.approx(-2.1, abs=0.05)
    assert found.lower.value == pytest.approx(-2.1 - 1.96 * 38.8, abs=0.1)
    assert found.upper.value == pytest.approx(-2.1 + 1.96 * 38.8, abs=0.1)
    assert (found.bias.low, found.bias.high) == pytest.approx((-22.0, 17.8), abs=0.1)


def test_one_sample_has_no_limits() -> None:
    assert limits_of_agreement([1], [2]).bias.value is None


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 16, 61, 400])
def test_students_quantile_is_scipys(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


def naive_slope(x: np.ndarray, y: np.ndarray) -> float:
    slopes = sorted((y[j] - y[i]) / (x[j] - x[i]) for i, j in combinations(range(len(x)), 2))
    slopes = [slope for slope in slopes if slope != -1]
    shift = sum(slope < -1 for slope in slopes)
    n = len(slopes)
    if n % 2:
        return float(slopes[(n - 1) // 2 + shift])
    return float((slopes[n // 2 - 1 + shift] + slopes[n // 2 + shift]) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_passing_bablok_is_the_shifted_median_of_slopes(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.uniform(0, 10, 30)
    y = 1 + x + random.normal(0, 3, 30)
    found = passing_bablok(x, y)
    assert found.slope.value == pytest.approx(naive_slope(x, y))
    assert found.intercept.value == pytest.approx(np.median(y - naive_slope(x, y) * x))


def test_passing_bablok_is_theil_and_sens_line_where_no_slope_is_below_minus_one() -> None:
    random = np.random.default_rng(1)
    x = np.sort(random.uniform(0, 10, 40))
    y = 2 + 3 * x + random.uniform(0, 0.01, 40)
    slope, _, low, high = stats.theilslopes(y, x)
    found = passing_bablok(x, y).slope
    assert found.value == pytest.approx(slope)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-3)


def test_passing_bablok_takes_either_measurement_for_the_first() -> None:
    random = np.random.default_rng(2)
    truth = random.uniform(0, 60, 50)
    x, y = truth + random.normal(0, 2, 50), 1.2 * truth + random.normal(0, 2, 50)
    one, other = passing_bablok(x, y).slope.value, passing_bablok(y, x).slope.value
    assert one is not None
    assert other is not None
    assert one * other == pytest.approx(1)


def test_passing_bablok_covers_the_line_in_95_of_100_sets() -> None:
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        truth = random.uniform(0, 60, 30)
        line = passing_bablok(truth + random.normal(0, 2, 30), truth + random.normal(0, 2, 30))
        assert line.slope.low is not None
        assert line.slope.high is not None
        covered += line.slope.low <= 1 <= line.slope.high
    assert 0.92 <= covered / 400 <= 0.99


def test_an_upright_line_has_no_slope() -> None:
    found = passing_bablok([0, 0, 0, 0, 0], [1, 2, 3, 4, 5])
    assert found.slope.value is found.slope.high is found.intercept.value is None


def test_equal_samples_have_no_line() -> None:
    assert passing_bablok([5, 5, 5, 5], [5, 5, 5, 5]).slope.value is None


def test_weighted_kappa_is_scikit_learns() -> None:
    random = np.random.default_rng(4)
    first = random.integers(0, 6, 80)
    second = np.clip(first + random.integers(-2, 3, 80), 0, 5)
    expected = cohen_kappa_score(first, second, weights="quadratic", labels=range(6))
    found = weighted_kappa(first.tolist(), second.tolist(), 6)
    assert found == pytest.approx(expected)
    assert isnan(weighted_kappa([2, 2], [2, 2], 6))


def test_categories_hold_their_lower_edge() -> None:
    assert into_categories([0, 0.9, 1, 4.9, 5, 100], (1, 5)).tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="ascend"):
        into_categories([1], (5, 1))


@pytest.mark.parametrize("second", [(0, 200), (6, 200), (12, 100), (100, 100), (0, 0)])
@pytest.mark.parametrize("first", [(0, 100), (3, 100), (55, 100), (190, 200)])
def test_chance_of_a_difference_is_fishers_exact_test(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    table = [[first[0], first[1] - first[0]], [second[0], second[1] - second[0]]]
    expected = stats.fisher_exact(table).pvalue
    assert chance_of_difference(first, second) == pytest.approx(expected)


def test_what_is_no_count_is_refused() -> None:
    with pytest.raises(ValueError, match="not two counts"):
        chance_of_difference((3, 2), (0, 1))


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_statsmodels_and_its_interval_that_of_the_share(seed: int) -> None:
    from statsmodels.stats.inter_rater import cohens_kappa
    from statsmodels.stats.proportion import proportion_confint

    confusion = np.random.default_rng(seed).integers(0, 30, (4, 4))
    found = cohen_kappa(confusion)
    assert found.value == pytest.approx(cohens_kappa(confusion).kappa)
    n, agreed = confusion.sum(), np.trace(confusion)
    chance = confusion.sum(axis=1) @ confusion.sum(axis=0) / n**2
    low, high = proportion_confint(agreed, n, method="beta")
    assert found.low == pytest.approx(max(-1, (low - chance) / (1 - chance)), abs=1e-6)
    assert found.high == pytest.approx((high - chance) / (1 - chance), abs=1e-6)


def test_kappa_of_nothing_and_of_one_label_is_not_known() -> None:
    assert cohen_kappa(np.zeros((2, 2))).value is None
    assert cohen_kappa([[5, 0], [0, 0]]).value is None


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (7, 2), (3, 3), (40, 60)])
def test_the_chance_of_pairs_is_that_of_the_binomial_test(better: int, worse: int) -> None:
    from scipy.stats import binomtest

    n = better + worse
    expected = binomtest(better, n).pvalue if n else 1.0
    assert chance_of_pairs(better, worse) == pytest.approx(expected)
