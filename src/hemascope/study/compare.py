"""Is one recipe better than another? Differences with intervals, exact tests, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

from hemascope.arrays import BoolArray, FloatArray
from hemascope.metrics.intervals import resample
from hemascope.records import Estimate

Verdict = Literal["holds", "contradicted", "cannot be told at this size"]

RESAMPLES = 10_000
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """Two recipes on the same n images.

    `difference` is the first's accuracy less the second's, over all seeds. `better` and `worse`
    are the images on which the first was right more often and less often than the second;
    `p_value` is their exact test, and `adjusted` that after Holm's correction.
    """

    title: str
    seeds: int
    difference: Estimate
    better: int
    worse: int
    p_value: float
    adjusted: float

    @property
    def verdict(self) -> Verdict:
        """Whether the claim that the first is the better one holds.

        It takes both a corrected p-value below 0.05 and an interval without 0.
        """
        low, high = self.difference.low, self.difference.high
        if self.adjusted < LEVEL and low is not None and high is not None:
            if low > 0:
                return "holds"
            if high < 0:
                return "contradicted"
        return "cannot be told at this size"


def compare(pairs: Sequence[tuple[str, BoolArray, BoolArray]]) -> tuple[Comparison, ...]:
    """Comparisons that are reported together: (title, first right, second right), each (S,N).

    Raises ValueError where the two of a pair have other shapes.
    """
    tests = [(title, first, second, *sign_test(first, second)) for title, first, second in pairs]
    adjusted = holm([p_value for *_, p_value in tests])
    return tuple(
        Comparison(
            title=title,
            seeds=len(first),
            difference=paired_difference(first, second),
            better=better,
            worse=worse,
            p_value=p_value,
            adjusted=corrected,
        )
        for (title, first, second, better, worse, p_value), corrected in zip(
            tests, adjusted, strict=True
        )
    )


def paired_difference(first: BoolArray, second: BoolArray, seed: int = 0) -> Estimate:
    """Difference of accuracies (S,N) - (S,N) with its 95 % percentile bootstrap interval.

    Images are resampled in pairs, and seeds as clusters: with one seed the interval speaks of
    the two trained networks, with several of their recipes, as far as so few can. Davison and
    Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    if first.shape != second.shape:
        raise ValueError(f"predictions of shapes {first.shape} and {second.shape} are not pairs")
    gain = first.astype(np.float64) - second  # (S,N)
    n = gain.shape[1]
    images, state = _resampled_images(n, seed)
    random = np.random.default_rng()
    random.bit_generator.state = state
    return over_seeds(float(gain.mean()), n, images @ gain.T / n, random)


@lru_cache(maxsize=1)  # a report compares many pairs on the same images
def _resampled_images(n: int, seed: int) -> tuple[FloatArray, Mapping[str, Any]]:
    """How often each of n images is drawn, (R,N), and the generator's state afterwards."""
    random = np.random.default_rng(seed)
    images = resample(random, RESAMPLES, n)
    return images, random.bit_generator.state


def over_seeds(value: float, n: int, figures: FloatArray, random: np.random.Generator) -> Estimate:
    """A mean over seeds with its interval, from S seeds' figures in R resamples of n images (R,S).

    In each, the seeds are drawn anew, as clusters.
    """
    seeds = resample(random, *figures.shape)  # (R,S)
    drawn = (figures * seeds).sum(axis=1) / figures.shape[1]
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return Estimate(value, n, low, high)


def sign_test(first: BoolArray, second: BoolArray) -> tuple[int, int, float]:
    """Images on which first was right more often, and less often, than second; two-sided p-value.

    With one seed this is McNemar's exact test; with several, each image counts once, by the
    sign of the difference over its seeds. McNemar, Psychometrika 12 (1947).
    """
    gain = first.astype(np.int64).sum(axis=0) - second.sum(axis=0)  # (N,)
    better, worse = int((gain > 0).sum()), int((gain < 0).sum())
    if better + worse == 0:
        return 0, 0, 1.0
    return better, worse, float(binomtest(better, better + worse).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number. Holm, Scand. J. Statist. 6 (1979)."""
    order, count = np.argsort(p_values), len(p_values)
    steps = (count - np.arange(count)) * np.array(p_values)[order]
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]
