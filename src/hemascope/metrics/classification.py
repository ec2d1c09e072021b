"""Probabilities and labels → figures, and all of them together as an Evaluation.

A figure that is undefined, such as the recall of a class without images, is NaN in an array and
None in an Evaluation. `weights` (R,N) say how often each image counts, in R resamples, and put
an axis R before the result's own; without them each image counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hemascope.arrays import BoolArray, FloatArray, IntArray
from hemascope.metrics.intervals import bootstrap, reflect_interval, wilson
from hemascope.records import ClassMetrics, Estimate, Evaluation, Mistake, SubtypeMetrics


def confusion_matrix(
    targets: IntArray, predicted: IntArray, num_classes: int, weights: FloatArray | None = None
) -> IntArray:
    """Counts (C,C), or (R,C,C) with weights: row = target (N,), column = predicted (N,).

    Raises ValueError for a class index outside 0..C-1.
    """
    for indices in (targets, predicted):
        if indices.size and not (indices.min() >= 0 and indices.max() < num_classes):
            raise ValueError(f"class indices must lie between 0 and {num_classes - 1}")
    cells = targets * num_classes + predicted
    samples = np.ones((1, cells.size)) if weights is None else weights
    counts = np.stack([np.bincount(cells, sample, num_classes**2) for sample in samples])
    confusion = counts.astype(np.int64).reshape(-1, num_classes, num_classes)
    return confusion[0] if weights is None else confusion


def recall(confusion: IntArray) -> FloatArray:
    """The share of a class's images that are predicted so: confusion (...,C,C) → (...,C)."""
    return _ratio(_hits(confusion), confusion.sum(-1))


def f1(confusion: IntArray) -> FloatArray:
    """The harmonic mean of precision and recall: confusion (...,C,C) → (...,C).

    It is 0 for a class that occurs only among the targets or only among the predictions, and
    NaN for one that occurs in neither.
    """
    return _ratio(2 * _hits(confusion), confusion.sum(-1) + confusion.sum(-2))


def macro(values: FloatArray) -> FloatArray:
    """The mean over the classes whose figure is defined: (...,C) → (...); NaN where none is."""
    return _ratio(np.nansum(values, axis=-1), np.count_nonzero(~np.isnan(values), axis=-1))


def balanced_accuracy(confusion: IntArray) -> FloatArray:
    """Mean recall over the classes that occur among the targets: confusion (...,C,C) → (...)."""
    return macro(recall(confusion))


def macro_f1(confusion: IntArray) -> FloatArray:
    """Mean F1 over the classes among targets or predictions: confusion (...,C,C) → (...)."""
    return macro(f1(confusion))


def auroc(
    probabilities: FloatArray, targets: IntArray, weights: FloatArray | None = None
) -> FloatArray:
    """Each class against the rest: probabilities (N,C), targets (N,) → areas (C,) or (R,C).

    The chance that an image of the class scores higher than another, a tie counting half; NaN
    where all or no images are of the class. Hanley and McNeil, "The meaning and use of the area
    under a receiver operating characteristic (ROC) curve", Radiology 143 (1982).
    """
    counts = np.ones(targets.size) if weights is None else weights
    columns = enumerate(probabilities.T)
    return np.stack([_area(scores, targets == k, counts) for k, scores in columns], axis=-1)


def _area(scores: FloatArray, positive: BoolArray, counts: FloatArray) -> FloatArray:
    rivals = np.flatnonzero(~positive)[np.argsort(scores[~positive])]
    lowest = np.zeros((*counts.shape[:-1], rivals.size + 1))  # images among the k lowest rivals
    np.cumsum(counts[..., rivals], axis=-1, out=lowest[..., 1:])
    below = np.searchsorted(scores[rivals], scores[positive], "left")
    not_above = np.searchsorted(scores[rivals], scores[positive], "right")
    own_counts = counts[..., positive]
    won = own_counts * (lowest[..., below] + lowest[..., not_above]) / 2  # (...,positives)
    return _ratio(won.sum(-1), own_counts.sum(-1) * lowest[..., -1])


def expected_calibration_error(
    probabilities: FloatArray, targets: IntArray, bins: int = 15, weights: FloatArray | None = None
) -> FloatArray:
    """Mean gap between confidence and accuracy: probabilities (N,C), targets (N,) → () or (R,).

    Confidence is the predicted class's probability. The bins hold equally many images (adaptive
    bins), as far as equal confidences, which share a bin, allow; weights do not move them. NaN
    without images. The figure errs upwards: chance alone leaves a gap in every bin, so it is
    comparable only between evaluations of the same size. Raises ValueError for fewer than one
    bin. Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural
    language processing models", EMNLP 2015; Nixon et al., "Measuring Calibration in Deep
    Learning", CVPR Workshops 2019.
    """
    if bins < 1:
        raise ValueError(f"calibration needs at least one bin, not {bins}")
    n = targets.size
    counts = np.ones(n) if weights is None else weights
    confidence = probabilities.max(axis=1)
    gaps = confidence - (probabilities.argmax(axis=1) == targets)
    _, tie, size = np.unique(confidence, return_inverse=True, return_counts=True)
    middle_rank = (np.cumsum(size) - size / 2)[tie]  # strictly between 0 and n
    binned = np.zeros((n, bins))
    binned[np.arange(n), (middle_rank * bins / max(n, 1)).astype(np.int64)] = gaps
    return _ratio(np.abs(counts @ binned).sum(-1), counts.sum(-1))


def evaluate(
    name: str,
    class_names: Sequence[str],
    probabilities: ArrayLike,
    targets: ArrayLike,
    paths: Sequence[str],
    subtypes: Sequence[str | None] | None = None,
    unreadable: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Every figure of N labelled images, with its interval; the order of the images is no matter.

    probabilities (N,C) sum to one in each row, targets (N,) are class indices, paths (N,);
    subtypes (N,) are None or empty where an image has none. N may be 0: then every value is
    None. Proportions have Wilson's interval; F1, AUROC and the macro figures the percentile
    bootstrap's; the calibration error, which chance raises, that one reflected.
    Raises ValueError for shapes, indices or probabilities that do not fit.
    """
    subtypes = [None] * len(paths) if subtypes is None else subtypes
    scores, labels = _check_inputs(class_names, probabilities, targets, paths, subtypes)
    predicted = scores.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, len(class_names))
    balanced, mean_f1, mean_auroc, calibration, *single = _bootstrap(scores, labels)
    f1s, aurocs = single[: len(class_names)], single[len(class_names) :]
    return Evaluation(
        name=name,
        class_names=tuple(class_names),
        n=labels.size,
        accuracy=wilson(int(np.trace(confusion)), labels.size),
        balanced_accuracy=balanced,
        macro_f1=mean_f1,
        macro_auroc=mean_auroc,
        expected_calibration_error=reflect_interval(calibration),
        per_class=_per_class(class_names, confusion, f1s, aurocs),
        per_subtype=_per_subtype(class_names, labels, predicted, subtypes),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        mistakes=_mistakes(class_names, scores, labels, paths),
        unreadable=tuple(unreadable),
        provenance=dict(provenance or {}),
    )


def _check_inputs(
    class_names: Sequence[str],
    probabilities: ArrayLike,
    targets: ArrayLike,
    paths: Sequence[str],
    subtypes: Sequence[str | None],
) -> tuple[FloatArray, IntArray]:
    scores, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    n, num_classes = len(paths), len(class_names)
    if num_classes < 2:
        raise ValueError(f"an evaluation needs at least two classes, not {num_classes}")
    if scores.shape != (n, num_classes) or labels.shape != (n,) or len(subtypes) != n:
        raise ValueError(
            f"{n} paths and {num_classes} classes do not fit probabilities of shape "
            f"{scores.shape}, targets of shape {labels.shape} and {len(subtypes)} subtypes"
        )
    # The tolerance leaves room for half precision, and none for logits.
    if not ((scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < 1e-2).all()):
        raise ValueError("probabilities must be at least 0 and sum to 1 in each row")
    if n and labels.dtype.kind not in "iu":
        raise ValueError(f"targets must be class indices, not {labels.dtype}")
    return scores, labels.astype(np.int64)


def _bootstrap(probabilities: FloatArray, targets: IntArray) -> list[Estimate]:
    """The figures of _resample_metrics with their intervals, whatever the order of the images."""
    order = np.lexsort((*probabilities.T, targets))  # else the same resamples are of other images
    measure = partial(_resample_metrics, probabilities[order], targets[order])
    return list(bootstrap(measure, targets.size))


def _resample_metrics(
    probabilities: FloatArray, targets: IntArray, weights: FloatArray
) -> FloatArray:
    """The bootstrapped figures of R resamples, (R,4+2C): four means, each class's F1, its AUROC."""
    num_classes = probabilities.shape[1]
    confusion = confusion_matrix(targets, probabilities.argmax(axis=1), num_classes, weights)
    f1s, areas = f1(confusion), auroc(probabilities, targets, weights)
    calibration = expected_calibration_error(probabilities, targets, weights=weights)
    means = (balanced_accuracy(confusion), macro(f1s), macro(areas), calibration)
    return np.concatenate([np.stack(means, axis=-1), f1s, areas], axis=-1)


def _per_class(
    class_names: Sequence[str],
    confusion: IntArray,
    f1s: Sequence[Estimate],
    aurocs: Sequence[Estimate],
) -> tuple[ClassMetrics, ...]:
    hits, predicted, labelled = _hits(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return tuple(
        ClassMetrics(
            label=label,
            precision=wilson(int(hits[k]), int(predicted[k])),
            recall=wilson(int(hits[k]), int(labelled[k])),
            f1=f1s[k],
            auroc=aurocs[k],
        )
        for k, label in enumerate(class_names)
    )


def _per_subtype(
    class_names: Sequence[str],
    targets: IntArray,
    predicted: IntArray,
    subtypes: Sequence[str | None],
) -> tuple[SubtypeMetrics, ...]:
    hits: dict[tuple[int, str], list[bool]] = {}
    for subtype, target, hit in zip(subtypes, targets, predicted == targets, strict=True):
        if subtype:
            hits.setdefault((int(target), subtype), []).append(bool(hit))
    return tuple(
        SubtypeMetrics(
            class_names[target], subtype, wilson(sum(hits_of_subtype), len(hits_of_subtype))
        )
        for (target, subtype), hits_of_subtype in sorted(hits.items())
    )


def _mistakes(
    class_names: Sequence[str], probabilities: FloatArray, targets: IntArray, paths: Sequence[str]
) -> tuple[Mistake, ...]:
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    mistakes = (
        Mistake(paths[i], class_names[targets[i]], class_names[predicted[i]], float(confidence[i]))
        for i in np.flatnonzero(predicted != targets).tolist()
    )
    return tuple(sorted(mistakes, key=lambda mistake: (-mistake.probability, mistake.path)))


def _hits(confusion: IntArray) -> IntArray:
    return confusion.diagonal(axis1=-2, axis2=-1)


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> FloatArray:
    """part / whole, NaN where whole is 0."""
    ratio = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=ratio, where=np.asarray(whole) > 0)
    return ratio
