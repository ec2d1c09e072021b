"""Intervals: how far a figure measured on these images may lie from that on all such images."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import exp, lgamma, log, log1p
from typing import TypeAlias

import numpy as np

from hemascope.arrays import FloatArray
from hemascope.records import Estimate, Proportion

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point

Statistic: TypeAlias = Callable[[FloatArray], FloatArray]
"""How often each image counts, in R samples (R,N) → K figures of each (R,K), NaN if undefined."""

# Resamples are drawn in blocks of at most this many counts, so that memory does not grow with N.
BLOCK = 2**20


def wilson(successes: int, n: int) -> Proportion:
    """A proportion with its 95 % Wilson score interval; value and interval are None where n is 0.

    Raises ValueError unless 0 <= successes <= n. Wilson, "Probable inference, the law of
    succession, and statistical inference", J. Am. Stat. Assoc. 22 (1927).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    if n == 0:
        return Proportion(0, 0, None, None, None)
    value = successes / n
    shrink = 1 + Z_95**2 / n
    centre = (value + Z_95**2 / (2 * n)) / shrink
    half = Z_95 / shrink * (value * (1 - value) / n + Z_95**2 / (4 * n**2)) ** 0.5
    # At the ends the bound is exactly 0 or 1; rounding would leave it a hair beside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Proportion(successes, n, value, low, high)


def exact_interval(successes: int, n: int) -> Proportion:
    """A proportion with its exact 95 % interval; value and interval are None where n is 0.

    It covers the true proportion in at least 95 % of samples, whatever it is, and of 0 successes
    it is as wide as it must be. Raises ValueError unless 0 <= successes <= n. Clopper and Pearson,
    "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    if n == 0:
        return Proportion(0, 0, None, None, None)
    low = 0.0 if successes == 0 else _beta_quantile(0.025, successes, n - successes + 1)
    high = 1.0 if successes == n else _beta_quantile(0.975, successes + 1, n - successes)
    return Proportion(successes, n, successes / n, low, high)


@lru_cache(maxsize=8192)  # the samples of a run have many counts in common
def _beta_quantile(share: float, a: float, b: float) -> float:
    """Below which a beta distribution has this share, by halving; scipy is not needed for it."""
    low, high = 0.0, 1.0
    while high - low > 1e-15 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _beta_share(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def _beta_share(x: float, a: float, b: float) -> float:
    """The share of a beta distribution below x: the regularised incomplete beta function.

    By Lentz's continued fraction. Press et al., "Numerical Recipes" (2007), section 6.4.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(1 - x, b, a)
    factor = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    tiny = 1e-300
    d = 1 / (1 - (a + b) * x / (a + 1) or tiny)
    c, fraction = 1.0, d
    for m in range(1, 10_000):
        before = fraction
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d or tiny)
            c = 1 + step / c or tiny
            fraction *= c * d
        if abs(fraction / before - 1) < 1e-15:
            break
    return factor * fraction


def bootstrap(
    statistic: Statistic, n: int, resamples: int = 1000, seed: int = 0
) -> tuple[Estimate, ...]:
    """K figures of n images, each with its 95 % percentile bootstrap interval over the images.

    `statistic` takes how often each image counts, (R,N), and returns the figures, (R,K): it is
    called with ones for the values, and with many resamples at a time for the intervals, so all
    figures share the same resamples. Images are drawn with replacement from all n, whatever
    their class: a resample may lack a class, and one in which a figure is undefined (NaN) is
    left out of that figure's interval. A figure undefined on the images themselves is an
    Estimate of None on 0 images. Where every resample agrees, as when no image is wrong, the
    interval has no width: that says nothing about rarer errors; Wilson's interval does.
    Raises ValueError for a negative n or fewer than one resample. Efron and Tibshirani, "An
    Introduction to the Bootstrap" (1993), chapter 13.
    """
    if n < 0 or resamples < 1:
        raise ValueError(f"cannot draw {resamples} resamples of {n} images")
    values = statistic(np.ones((1, n)))[0]
    drawn = np.full((resamples, values.size), np.nan)
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // max(1, n))
    for start in range(0, resamples if n else 0, rows):
        block = drawn[start : start + rows]
        block[:] = statistic(resample(random, len(block), n))
    return tuple(_estimate(value, drawn[:, k], n) for k, value in enumerate(values.tolist()))


def reflect_interval(estimate: Estimate) -> Estimate:
    """A percentile interval turned about its value: the basic bootstrap interval, cut to 0..1.

    For a figure in 0..1 that chance raises, such as a calibration error: resampling raises it
    once more, so that the percentile interval lies too high, by as much as this one takes away.
    It is widened to the value where it would miss it. Davison and Hinkley,
    "Bootstrap Methods and their Application" (1997), section 5.2.
    """
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None or low is None or high is None:
        return estimate
    low, high = max(0.0, 2 * value - high), min(1.0, 2 * value - low)
    return Estimate(value, estimate.n, min(value, low), max(value, high))


def resample(random: np.random.Generator, rows: int, n: int) -> FloatArray:
    """How often each of n images occurs among n drawn with replacement: (rows,n)."""
    drawn = random.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _estimate(value: float, resampled: FloatArray, n: int) -> Estimate:
    if np.isnan(value):
        return Estimate(None, 0, None, None)
    defined = resampled[~np.isnan(resampled)]
    if defined.size == 0:
        return Estimate(value, n, None, None)
    low, high = np.percentile(defined, (2.5, 97.5)).tolist()
    return Estimate(value, n, low, high)
