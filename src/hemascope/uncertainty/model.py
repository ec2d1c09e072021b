"""Trust: what a Prediction says of itself, fitted on labelled images that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemascope.arrays import AnyFloatArray, AnyIntArray, BoolArray, FloatArray, ImageArray
from hemascope.uncertainty.conformal import class_thresholds, conformal_threshold, prediction_sets
from hemascope.uncertainty.image_quality import (
    QualityLimits,
    QualityMeasures,
    fit_quality,
    quality_reasons,
)
from hemascope.uncertainty.ood import Seen, Unlike, fit_unlike
from hemascope.uncertainty.temperature import fit_temperature, softmax

UNSURE, UNLIKE = "several classes possible", "unlike the training cells"

MISSED = 0.05  # share of right classes that a prediction set may miss
UNSURE_SHARE = 0.03  # share of calibration images that are sent to review as unsure
UNLIKE_SHARE = 0.005  # share of them that count as unlike the training cells
POOR_TAIL = 0.002  # share of them that each limit of quality leaves out
LEAST_PER_CLASS = 20


@dataclass(frozen=True)
class Trust:
    """How a model's answers are judged, in units of what it makes of calibration images.

    `set_threshold` and `class_thresholds` (C,) are the least probabilities of a class in a
    prediction set. An answer below `least_probability` is unsure. `unlike` scores how unlike the
    training cells an image is.
    """

    calibrated_on: str
    images: int
    set_threshold: float
    class_thresholds: tuple[float, ...]
    least_probability: float
    unlike: Unlike
    quality: QualityLimits


class Assessment(NamedTuple):
    """Of N images: sets (N,C), out-of-distribution scores (N,), and why each wants review."""

    sets: BoolArray
    class_sets: BoolArray
    ood_scores: FloatArray
    reasons: list[tuple[str, ...]]


def assess(
    trust: Trust,
    probabilities: FloatArray,
    features: AnyFloatArray,
    texture: AnyFloatArray,
    images: ImageArray,
) -> Assessment:
    """Probabilities (N,C), features (N,F), texture (N,T), preprocessed images (N,S,S,3)."""
    ood_scores = trust.unlike(features, texture)
    unsure = probabilities.max(axis=1) < trust.least_probability
    quality = quality_reasons(images, trust.quality)
    judged = zip(unsure.tolist(), (ood_scores > 1).tolist(), quality, strict=True)
    return Assessment(
        sets=prediction_sets(probabilities, trust.set_threshold),
        class_sets=prediction_sets(probabilities, trust.class_thresholds),
        ood_scores=ood_scores,
        reasons=[(UNSURE,) * doubt + (UNLIKE,) * strange + seen for doubt, strange, seen in judged],
    )


def fit_trust(
    seen: Seen,
    measures: Sequence[QualityMeasures],
    class_names: Sequence[str],
    calibrated_on: str,
) -> tuple[float, Trust]:
    """Temperature and Trust, from images of which training saw none, equally many a class.

    The classes count alike since how often each comes is not known of the images to come.
    Raises ValueError where a class has fewer than 20 images.
    """
    counts = np.bincount(seen.targets, minlength=len(class_names))
    if counts.min() < LEAST_PER_CLASS:
        raise ValueError(
            f"{counts.min()} readable images of class '{class_names[int(counts.argmin())]}'; "
            f"calibration needs at least {LEAST_PER_CLASS} of each class, which training never saw"
        )
    chosen = _equally_many(seen.targets, int(counts.min()))
    logits, targets = seen.logits[chosen], seen.targets[chosen]
    temperature = fit_temperature(logits, targets)
    probabilities = softmax(logits, temperature)
    calibration = Seen(logits, seen.features[chosen], seen.texture[chosen], targets)
    return temperature, Trust(
        calibrated_on=calibrated_on,
        images=len(chosen),
        set_threshold=conformal_threshold(probabilities, targets, MISSED),
        class_thresholds=tuple(class_thresholds(probabilities, targets, MISSED).tolist()),
        least_probability=float(np.quantile(probabilities.max(axis=1), UNSURE_SHARE)),
        unlike=fit_unlike(calibration, UNLIKE_SHARE),
        quality=fit_quality(measures, POOR_TAIL),
    )


def _equally_many(targets: AnyIntArray, each: int) -> NDArray[np.intp]:
    """Places of `each` images a class, drawn with a fixed seed."""
    random = np.random.default_rng(0)
    classes = np.unique(targets)
    drawn = [random.permutation(np.flatnonzero(targets == k))[:each] for k in classes]
    return np.sort(np.concatenate(drawn))
