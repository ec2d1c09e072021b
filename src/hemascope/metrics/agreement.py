"""Two ways to measure the same samples: bias, limits of agreement, a line, kappa, chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb, exp, isfinite, lgamma, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from hemascope.arrays import FloatArray, IntArray
from hemascope.metrics.intervals import Z_95, exact_interval
from hemascope.records import Estimate

TIE = 1e-9  # relative: two tables whose chances differ less are equally likely


@dataclass(frozen=True)
class LimitsOfAgreement:
    """The mean difference of two measurements, and between which limits 95 % of them lie."""

    bias: Estimate
    lower: Estimate
    upper: Estimate


@dataclass(frozen=True)
class Line:
    """second = intercept + slope · first."""

    slope: Estimate
    intercept: Estimate


def limits_of_agreement(first: ArrayLike, second: ArrayLike) -> LimitsOfAgreement:
    """Of second - first, for N samples, with 95 % intervals; undefined for fewer than two.

    Bland and Altman, "Statistical methods for assessing agreement between two methods of clinical
    measurement", Lancet 327 (1986); "Measuring agreement in method comparison studies",
    Statistical Methods in Medical Research 8 (1999), for the intervals of the limits.
    """
    gaps = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    n = gaps.size
    if n < 2:
        none = Estimate(None, 0, None, None)
        return LimitsOfAgreement(none, none, none)
    mean, spread = float(gaps.mean()), float(gaps.std(ddof=1))
    reach, t = Z_95 * spread, t_quantile(n - 1)
    of_mean = t * spread / sqrt(n)
    of_limit = t * spread * sqrt(1 / n + Z_95**2 / (2 * (n - 1)))

    def around(value: float, half: float) -> Estimate:
        return Estimate(value, n, value - half, value + half)

    return LimitsOfAgreement(
        around(mean, of_mean), around(mean - reach, of_limit), around(mean + reach, of_limit)
    )


def passing_bablok(first: ArrayLike, second: ArrayLike) -> Line:
    """A line through N samples with errors in both measurements, with its 95 % intervals.

    The slope is the shifted median of the slopes between all pairs of samples. Undefined for fewer
    than three samples, or where all have the same value; None for an upright line. Passing and
    Bablok, "A new biometrical procedure for testing the equality of measurements from two different
    analytical methods", Journal of Clinical Chemistry and Clinical Biochemistry 21 (1983).
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    n, slopes = x.size, _pair_slopes(x, y)
    if n < 3 or not slopes.size:
        return Line(Estimate(None, 0, None, None), Estimate(None, 0, None, None))
    count, shift = slopes.size, int((slopes < -1).sum())
    reach = Z_95 * sqrt(n * (n - 1) * (2 * n + 5) / 18)
    lowest = round((count - reach) / 2)
    middle = (
        slopes[_within((count - 1) // 2 + shift, count)]
        + slopes[_within(count // 2 + shift, count)]
    ) / 2
    low = slopes[_within(lowest - 1 + shift, count)]
    high = slopes[_within(count - lowest + shift, count)]
    value, steep, flat = (_cut(x, y, slope) for slope in (middle, high, low))
    return Line(
        Estimate(_finite(middle), n, _finite(low), _finite(high)), Estimate(value, n, steep, flat)
    )


def _cut(x: FloatArray, y: FloatArray, slope: float) -> float | None:
    """Where the line of this slope through the middle of the samples cuts the axis."""
    return float(np.median(y - slope * x)) if isfinite(slope) else None


def _finite(slope: float) -> float | None:
    """A slope, or None for an upright line."""
    return float(slope) if isfinite(slope) else None


def _pair_slopes(x: FloatArray, y: FloatArray) -> FloatArray:
    """Sorted slopes between all pairs of different samples, without those of -1."""
    rows, columns = np.triu_indices(x.size, 1)
    dx, dy = x[columns] - x[rows], y[columns] - y[rows]
    differ = (dx != 0) | (dy != 0)
    dx, dy = dx[differ], dy[differ]
    upright = np.where(dy > 0, np.inf, -np.inf)
    slopes = np.divide(dy, dx, out=np.where(dx == 0, upright, 0.0), where=dx != 0)
    return np.sort(slopes[slopes != -1])


def _within(index: int, count: int) -> int:
    return min(max(index, 0), count - 1)


def weighted_kappa(first: Sequence[int], second: Sequence[int], categories: int) -> float:
    """Agreement of two ratings in ordered categories beyond chance, by squared distance.

    NaN where chance alone would agree, as when all ratings are the same. Cohen, "Weighted kappa",
    Psychological Bulletin 70 (1968).
    """
    seen = np.zeros((categories, categories))
    np.add.at(seen, (list(first), list(second)), 1.0)
    n = seen.sum()
    if not n:
        return nan
    chance = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / n
    ranks = np.arange(categories)
    weights = np.square(ranks[:, None] - ranks[None, :], dtype=np.float64)
    expected = float((weights * chance).sum())
    return 1 - float((weights * seen).sum()) / expected if expected else nan


def cohen_kappa(confusion: ArrayLike) -> Estimate:
    """Agreement of two raters (K,K) beyond chance, with a 95 % interval; None if chance is all.

    The interval is the exact one of the share on which they agree, with the agreement by chance
    taken as known. Cohen, "A coefficient of agreement for nominal scales", Educational and
    Psychological Measurement 20 (1960). It supposes that cells are independent.
    """
    seen = np.asarray(confusion, dtype=np.float64)
    n = int(seen.sum())
    if not n:
        return Estimate(None, 0, None, None)
    chance = float(seen.sum(axis=1) @ seen.sum(axis=0)) / n**2
    agreed = exact_interval(int(np.trace(seen)), n)
    if chance == 1 or agreed.value is None or agreed.low is None or agreed.high is None:
        return Estimate(None, n, None, None)
    value, low, high = (
        (x - chance) / (1 - chance) for x in (agreed.value, agreed.low, agreed.high)
    )
    return Estimate(value, n, max(-1.0, low), high)


def chance_of_pairs(better: int, worse: int) -> float:
    """How often so uneven a division of untied pairs comes by chance: the exact sign test.

    Two-sided; McNemar's test where pairs are right and wrong answers. 1 without pairs.
    """
    n, fewer = better + worse, min(better, worse)
    return min(1.0, float(2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n))


def into_categories(percentages: ArrayLike, edges: Sequence[float]) -> IntArray:
    """The category of each percentage: how many of the ascending edges it exceeds or reaches."""
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError("the edges of categories must ascend")
    return np.searchsorted(np.asarray(edges), np.asarray(percentages), side="right").astype(
        np.int64
    )


def chance_of_difference(first: tuple[int, int], second: tuple[int, int]) -> float:
    """How often two counts (k of n) of the same blood differ as much as these, by chance alone.

    Fisher's exact test, two-sided. Below 0.05 the difference is more than the error that counting
    few cells brings, of which Rümke has tables: "The statistically expected variability in
    differential leukocyte counting", in Koepke (ed.), "Differential Leukocyte Counting" (1977).
    Raises ValueError unless 0 <= k <= n.
    """
    (k, n), (other, of) = first, second
    if not (0 <= k <= n and 0 <= other <= of):
        raise ValueError(f"{k} of {n} and {other} of {of} are not two counts")
    total = k + other
    tables = range(max(0, total - of), min(n, total) + 1)
    logs = [_log_choose(n, i) + _log_choose(of, total - i) for i in tables]
    top = max(logs)
    chances = [exp(value - top) for value in logs]
    seen = chances[k - tables[0]] * (1 + TIE)
    return min(1.0, sum(chance for chance in chances if chance <= seen) / sum(chances))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def t_quantile(degrees: int) -> float:
    """Student's 97.5 % point, by halving on the distribution's exact sum for whole degrees."""
    low, high = 0.0, 700.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_share(middle, degrees) < 0.95 else (low, middle)
    return (low + high) / 2


def _t_share(t: float, degrees: int) -> float:
    """How much of Student's distribution lies between -t and t.

    Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.7.3 and 26.7.4.
    """
    angle = np.arctan2(t, sqrt(degrees))
    sine, cosine = float(np.sin(angle)), float(np.cos(angle))
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for step in range(degrees // 2 if not odd else (degrees - 1) // 2):
        total += term
        factor = (2 * step + 2) / (2 * step + 3) if odd else (2 * step + 1) / (2 * step + 2)
        term *= cosine**2 * factor
    return float(2 / np.pi * (angle + sine * total)) if odd else sine * total
