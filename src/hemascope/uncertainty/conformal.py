"""Conformal prediction sets: they hold the right class with a chosen probability.

Split conformal prediction: the nonconformity of a class is one minus its probability. A class
belongs to an image's set if its nonconformity is at most the (1 - alpha) quantile of that of the
right classes of the calibration images. This holds whatever the network is, but only for images
drawn from the same distribution as the calibration images.

Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005); Sadinle, Lei and
Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 114 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hemascope.arrays import AnyIntArray, BoolArray, FloatArray


def conformal_threshold(
    probabilities: FloatArray, targets: AnyIntArray, alpha: float = 0.05
) -> float:
    """The least probability of a class in a set, from probabilities (N,C) and targets (N,).

    The right class of a new image reaches it with a probability of at least 1 - alpha, and of at
    most 1 - alpha + 1/(N+1) if no two of the N probabilities are equal. It is 0, so that every set
    holds all classes, where N is too small for `alpha`. Raises ValueError for an alpha that is not
    between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    of_targets = probabilities[np.arange(len(targets)), targets]
    # The k-th largest nonconformity with k = ⌈(N+1)(1-α)⌉ is the (N+1-k)-th smallest probability.
    index = len(targets) - math.ceil((len(targets) + 1) * (1 - alpha))
    return float(np.sort(of_targets)[index]) if index >= 0 else 0.0


def class_thresholds(
    probabilities: FloatArray, targets: AnyIntArray, alpha: float = 0.05
) -> FloatArray:
    """One threshold per class, (C,), so that each class has the chosen probability.

    It is 0 for a class with too few images. Vovk, "Conditional validity of inductive conformal
    predictors", ACML 2012.
    """
    chosen = [targets == k for k in range(probabilities.shape[1])]
    return np.array([conformal_threshold(probabilities[k], targets[k], alpha) for k in chosen])


def prediction_sets(
    probabilities: FloatArray, thresholds: float | Sequence[float] | FloatArray
) -> BoolArray:
    """Which classes are in each image's set: probabilities (N,C) → (N,C).

    There is one threshold, or one per class. A set is empty if no class is as probable as the right
    class usually is.
    """
    return np.asarray(probabilities >= thresholds)
