"""Whether a map shows what a prediction rests on: remove that, or show only that.

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation", BMVC 2018.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray, ImageArray

Probability = Callable[[ImageArray], FloatArray]
"""Images (N,S,S,3) → one class's probability (N,)."""


STEPS = 32


def remove_stepwise(image: ImageArray, ground: ImageArray, weights: AnyFloatArray) -> ImageArray:
    """The image (S,S,3), ever more of it replaced by `ground`: (STEPS+1,S,S,3).

    The places of the greatest `weights` (S,S) go first; the last image is all ground.
    """
    ranks = np.empty(weights.size, dtype=np.int64)
    ranks[np.argsort(-weights, axis=None, kind="stable")] = np.arange(weights.size)
    limits = np.linspace(0, weights.size, STEPS + 1)
    gone = ranks.reshape(1, *weights.shape) < limits[:, None, None]  # (STEPS+1,S,S)
    return np.where(gone[..., None], ground, image).astype(np.uint8)


def deletion(
    image: ImageArray,
    ground: ImageArray,
    weights: AnyFloatArray,
    probability: Probability,
) -> float:
    """Area under the probability as the weightiest places go, 0..1: low for a faithful map."""
    curve = probability(remove_stepwise(image, ground, weights))
    return float(np.trapezoid(curve, dx=1 / STEPS))


def insertion(
    image: ImageArray,
    ground: ImageArray,
    weights: AnyFloatArray,
    probability: Probability,
) -> float:
    """Area under the probability as the weightiest places come, 0..1: high for a faithful map."""
    return deletion(ground, image, weights, probability)
