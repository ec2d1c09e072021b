"""Figures of a site whose cells are of some of a model's classes only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from hemascope.arrays import FloatArray, IntArray
from hemascope.metrics.classification import (
    balanced_accuracy,
    confusion_matrix,
    expected_calibration_error,
)
from hemascope.metrics.intervals import bootstrap, reflect_interval, wilson
from hemascope.records import ChoiceMetrics

AT_LEAST = 20  # cells; with fewer, the interval of a recall is more than 40 points wide


def shared_classes(targets: IntArray, num_classes: int, at_least: int = AT_LEAST) -> IntArray:
    """The classes, by index, with so many of the targets (N,); none where that is only one."""
    counts = np.bincount(targets, minlength=num_classes)
    shared = np.flatnonzero(counts >= at_least)
    return shared if shared.size > 1 else shared[:0]


def measure_present(
    class_names: Sequence[str], probabilities: FloatArray, targets: IntArray
) -> ChoiceMetrics | None:
    """The figures of all images, named among the classes that occur among the targets.

    None where every class occurs, and where one does, which could not be missed.
    """
    present = np.unique(targets)
    if not 1 < present.size < len(class_names):
        return None
    return measure_choice(class_names, probabilities, targets, present, present)


def restrict(probabilities: FloatArray, classes: IntArray) -> FloatArray:
    """Probabilities (N,C) given that the cell is of one of K classes: (N,K), rows sum to 1.

    They are equal in a row whose classes all have probability 0.
    """
    kept = probabilities[:, classes]
    total = kept.sum(axis=1, keepdims=True)
    equal = np.full(kept.shape, 1 / max(1, classes.size))
    return np.asarray(np.divide(kept, total, out=equal, where=total > 0))


def measure_choice(
    class_names: Sequence[str],
    probabilities: FloatArray,
    targets: IntArray,
    labels: IntArray,
    choice: IntArray,
) -> ChoiceMetrics:
    """The figures of the images whose label is one of `labels`, predicted among `choice`.

    probabilities (N,C) and targets (N,) are over all of the model's classes, in `class_names`;
    labels (K,) and choice (M,) are class indices, and the former are all among the latter.
    Accuracy has Wilson's interval, the others the bootstrap's over images, that of the
    calibration error reflected. Raises ValueError for a label that cannot be chosen.
    """
    if not np.isin(labels, choice).all():
        raise ValueError("a class of the labels is not among those to choose from")
    of_labels = np.isin(targets, labels)
    scores = restrict(probabilities[of_labels], choice)
    kept = np.searchsorted(choice, targets[of_labels])
    order = np.lexsort((*scores.T, kept))  # so that the images' order is no matter
    scores, kept = scores[order], kept[order]
    confusion = np.zeros((choice.size, choice.size), dtype=np.int64)
    if kept.size:
        confusion = confusion_matrix(kept, scores.argmax(axis=1), choice.size)
    balanced, confidence, calibration = bootstrap(
        partial(_resample_metrics, scores, kept), kept.size
    )
    return ChoiceMetrics(
        classes=tuple(class_names[k] for k in choice),
        accuracy=wilson(int(np.trace(confusion)), kept.size),
        balanced_accuracy=balanced,
        mean_confidence=confidence,
        expected_calibration_error=reflect_interval(calibration),
        confusion=tuple(tuple(row) for row in confusion[np.searchsorted(choice, labels)].tolist()),
    )


def _resample_metrics(
    probabilities: FloatArray, targets: IntArray, weights: FloatArray
) -> FloatArray:
    """Of R resamples (R,3): balanced accuracy, mean confidence, calibration error."""
    if not targets.size:
        return np.full((len(weights), 3), np.nan)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_matrix(targets, predicted, probabilities.shape[1], weights)
    confidence = weights @ probabilities.max(axis=1) / weights.sum(axis=1)
    calibration = expected_calibration_error(probabilities, targets, weights=weights)
    return np.stack([balanced_accuracy(confusion), confidence, calibration], axis=-1)
