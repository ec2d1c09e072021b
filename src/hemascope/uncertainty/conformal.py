"""Sets of classes that hold the right one with a chosen probability, whatever the network.

Split conformal prediction: the nonconformity of a class is one minus its probability, and a class
belongs to an image's set if that is no larger than it was for all but a share `alpha` of the
calibration images. The promise holds for images drawn like the calibration images, and for no
others. Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005); Sadinle, Lei
and Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 114 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hemascope.arrays import AnyIntArray, BoolArray, FloatArray


def conformal_threshold(
    probabilities: FloatArray, targets: AnyIntArray, alpha: float = 0.05
) -> float:
    """The least probability of a class in a set, from N calibration images (N,C), (N,).

    The right class of a new image reaches it with a probability of at least 1 - alpha, and at
    most 1 - alpha + 1/(N+1) where no two agree. It is 0, so that every set holds all classes,
    where N is too small for `alpha`. Raises ValueError for an alpha not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, not {alpha}")
    of_targets = probabilities[np.arange(len(targets)), targets]
    # The k-th largest nonconformity with k = ⌈(N+1)(1-α)⌉ is the (N+1-k)-th smallest probability.
    place = len(targets) - math.ceil((len(targets) + 1) * (1 - alpha))
    return float(np.sort(of_targets)[place]) if place >= 0 else 0.0


def class_thresholds(
    probabilities: FloatArray, targets: AnyIntArray, alpha: float = 0.05
) -> FloatArray:
    """A threshold a class, (C,), so that the promise holds within each class.

    0 for a class with too few images. Vovk, "Conditional validity of inductive conformal
    predictors", ACML 2012.
    """
    chosen = [targets == k for k in range(probabilities.shape[1])]
    return np.array([conformal_threshold(probabilities[k], targets[k], alpha) for k in chosen])


def prediction_sets(
    probabilities: FloatArray, thresholds: float | Sequence[float] | FloatArray
) -> BoolArray:
    """Which classes are in each image's set: (N,C), one threshold or one a class → (N,C).

    A set can be empty: then no class is as probable as the right one usually is.
    """
    return np.asarray(probabilities >= thresholds)
