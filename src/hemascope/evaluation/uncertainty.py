"""How far a calibrated model's own judgement of its answers held, on labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hemascope.arrays import BoolArray, FloatArray, IntArray
from hemascope.metrics.classification import expected_calibration_error
from hemascope.metrics.intervals import bootstrap, reflected, wilson
from hemascope.records import (
    Calibration,
    Prediction,
    Proportion,
    ReliabilityBin,
    SetFigures,
    TrustFigures,
)
from hemascope.uncertainty.temperature import softmax

BINS = 15
POINTS = 100  # of the risk-coverage curve


def trust_figures(
    predictions: Sequence[Prediction],
    targets: IntArray,
    temperatures: FloatArray,
    calibrated_on: str,
) -> TrustFigures:
    """N calibrated Predictions and their class indices (N,) → TrustFigures. N is at least 1.

    `temperatures` (N,) are those by which the predictions were calibrated.
    """
    names = list(predictions[0].probabilities)
    probabilities = np.array([[p.probabilities[name] for name in names] for p in predictions])
    right = probabilities.argmax(axis=1) == targets
    review = np.array([bool(p.review) for p in predictions])
    known = np.array([bool(p.in_distribution) for p in predictions])
    reasons = [reason for p in predictions for reason in p.review_reasons]
    return TrustFigures(
        calibrated_on=calibrated_on,
        uncalibrated=calibration(_uncalibrated(probabilities, temperatures), targets),
        calibrated=calibration(probabilities, targets),
        sets=_set_figures([p.prediction_set or () for p in predictions], names, targets),
        class_conditional_sets=_set_figures(
            [p.class_conditional_set or () for p in predictions], names, targets
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


def calibration(probabilities: FloatArray, targets: IntArray) -> Calibration:
    """Probabilities (N,C), class indices (N,) → Calibration, with intervals over the images.

    Guo et al., "On calibration of modern neural networks", ICML 2017; Brier, "Verification of
    forecasts expressed in terms of probability", Monthly Weather Review 78 (1950).
    """
    order = np.lexsort((*probabilities.T, targets))  # else the resamples depend on the order
    probabilities, targets = probabilities[order], targets[order]
    squares = ((probabilities - np.eye(probabilities.shape[1])[targets]) ** 2).sum(axis=1)

    def figures(weights: FloatArray) -> FloatArray:
        error = expected_calibration_error(probabilities, targets, BINS, weights)
        return np.stack([error, weights @ squares / weights.sum(axis=1)], axis=1)

    error, brier = bootstrap(figures, len(targets))
    return Calibration(reflected(error), brier, _bins(probabilities, targets))


def risk_coverage(confidence: FloatArray, right: BoolArray) -> tuple[tuple[float, float], ...]:
    """Share answered, and share of mistakes among those, if the most confident are answered first.

    El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 11
    (2010).
    """
    wrong = ~right[np.argsort(-confidence, kind="stable")]
    n = len(wrong)
    answered = np.unique(np.linspace(1, n, min(n, POINTS)).round().astype(int))
    mistakes = np.cumsum(wrong)[answered - 1]
    return tuple(zip((answered / n).tolist(), (mistakes / answered).tolist(), strict=True))


def _uncalibrated(probabilities: FloatArray, temperatures: FloatArray) -> FloatArray:
    """What the same logits give at temperature 1."""
    return softmax(np.log(np.maximum(probabilities, 1e-300)) * temperatures[:, None])


def _bins(probabilities: FloatArray, targets: IntArray) -> tuple[ReliabilityBin, ...]:
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(BINS, len(targets)))
    return tuple(
        ReliabilityBin(float(confidence[part].mean()), _share(right[part])) for part in parts
    )


def _set_figures(
    sets: Sequence[tuple[str, ...]], names: Sequence[str], targets: IntArray
) -> SetFigures:
    held = np.array([names[target] in chosen for chosen, target in zip(sets, targets, strict=True)])
    sizes = np.array([len(chosen) for chosen in sets], dtype=np.float64)
    mean_size = bootstrap(lambda w: (w @ sizes / w.sum(axis=1))[:, None], len(sizes))[0]
    return SetFigures(
        coverage=_share(held),
        per_class=tuple(_share(held[targets == k]) for k in range(len(names))),
        mean_size=mean_size,
        empty=_share(sizes == 0),
    )


def _share(flags: BoolArray) -> Proportion:
    return wilson(int(flags.sum()), len(flags))
