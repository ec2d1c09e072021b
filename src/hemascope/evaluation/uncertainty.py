"""How far a calibrated model's statements about its predictions held, on labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hemascope.arrays import BoolArray, FloatArray, IntArray
from hemascope.metrics.classification import expected_calibration_error
from hemascope.metrics.intervals import bootstrap, reflect_interval, wilson
from hemascope.predictions import Prediction
from hemascope.records import (
    Calibration,
    Proportion,
    ReliabilityBin,
    SetMetrics,
    UncertaintyMetrics,
)
from hemascope.uncertainty.temperature import softmax

BINS = 15
POINTS = 100  # of the risk-coverage curve


def measure_uncertainty(
    predictions: Sequence[Prediction],
    targets: IntArray,
    temperatures: FloatArray,
    calibrated_on: str,
) -> UncertaintyMetrics:
    """N calibrated Predictions and their class indices (N,) → UncertaintyMetrics. N is at least 1.

    `temperatures` (N,) are those by which the predictions were calibrated.
    """
    names = list(predictions[0].probabilities)
    probabilities = np.array([[p.probabilities[name] for name in names] for p in predictions])
    right = probabilities.argmax(axis=1) == targets
    uncertainties = [p.uncertainty for p in predictions if p.uncertainty is not None]
    review = np.array([uncertainty.review for uncertainty in uncertainties])
    known = np.array([uncertainty.in_distribution for uncertainty in uncertainties])
    reasons = [reason for uncertainty in uncertainties for reason in uncertainty.review_reasons]
    return UncertaintyMetrics(
        calibrated_on=calibrated_on,
        uncalibrated=measure_calibration(_undo_calibration(probabilities, temperatures), targets),
        calibrated=measure_calibration(probabilities, targets),
        sets=_measure_sets(
            [uncertainty.prediction_set for uncertainty in uncertainties], names, targets
        ),
        class_conditional_sets=_measure_sets(
            [uncertainty.class_conditional_set for uncertainty in uncertainties], names, targets
        ),
        reviewed=_share(review),
        review_reasons={
            reason: wilson(reasons.count(reason), len(predictions))
            for reason in sorted(set(reasons))
        },
        accuracy_of_rest=_share(right[~review]),
        in_distribution=_share(known),
        accuracy_in_distribution=_share(right[known]),
        risk_coverage=risk_coverage(probabilities.max(axis=1), right),
    )


def measure_calibration(probabilities: FloatArray, targets: IntArray) -> Calibration:
    """Probabilities (N,C), class indices (N,) → Calibration, with intervals over the images.

    Guo et al., "On calibration of modern neural networks", ICML 2017; Brier, "Verification of
    forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).
    """
    order = np.lexsort((*probabilities.T, targets))  # else the resamples depend on the order
    probabilities, targets = probabilities[order], targets[order]
    squares = ((probabilities - np.eye(probabilities.shape[1])[targets]) ** 2).sum(axis=1)

    def resample_metrics(weights: FloatArray) -> FloatArray:
        error = expected_calibration_error(probabilities, targets, BINS, weights)
        return np.stack([error, weights @ squares / weights.sum(axis=1)], axis=1)

    error, brier = bootstrap(resample_metrics, len(targets))
    return Calibration(reflect_interval(error), brier, _bins(probabilities, targets))


def risk_coverage(confidence: FloatArray, right: BoolArray) -> tuple[tuple[float, float], ...]:
    """Share of images predicted, most confident first, and share of mistakes among them.

    El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 11
    (2010).
    """
    wrong = ~right[np.argsort(-confidence, kind="stable")]
    n = len(wrong)
    predicted = np.unique(np.linspace(1, n, min(n, POINTS)).round().astype(int))
    mistakes = np.cumsum(wrong)[predicted - 1]
    return tuple(zip((predicted / n).tolist(), (mistakes / predicted).tolist(), strict=True))


def _undo_calibration(probabilities: FloatArray, temperatures: FloatArray) -> FloatArray:
    """What the same logits give at temperature 1."""
    return softmax(np.log(np.maximum(probabilities, 1e-300)) * temperatures[:, None])


def _bins(probabilities: FloatArray, targets: IntArray) -> tuple[ReliabilityBin, ...]:
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(BINS, len(targets)))
    return tuple(
        ReliabilityBin(float(confidence[group].mean()), _share(right[group])) for group in groups
    )


def _measure_sets(
    sets: Sequence[tuple[str, ...]], names: Sequence[str], targets: IntArray
) -> SetMetrics:
    held = np.array([names[target] in chosen for chosen, target in zip(sets, targets, strict=True)])
    sizes = np.array([len(chosen) for chosen in sets], dtype=np.float64)
    mean_size = bootstrap(lambda w: (w @ sizes / w.sum(axis=1))[:, None], len(sizes))[0]
    return SetMetrics(
        coverage=_share(held),
        per_class=tuple(_share(held[targets == k]) for k in range(len(names))),
        mean_size=mean_size,
        empty=_share(sizes == 0),
    )


def _share(flags: BoolArray) -> Proportion:
    return wilson(int(flags.sum()), len(flags))
