"""UncertaintyModel: how far predictions can be trusted, fitted on images unseen in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hemascope.arrays import AnyFloatArray, AnyIntArray, BoolArray, FloatArray, ImageArray
from hemascope.predictions import Laboratory
from hemascope.uncertainty.conformal import class_thresholds, conformal_threshold, prediction_sets
from hemascope.uncertainty.image_quality import (
    QualityLimits,
    QualityMeasures,
    fit_quality,
    judge_quality,
    measure_quality,
)
from hemascope.uncertainty.image_style import ImageStyle
from hemascope.uncertainty.laboratory import LaboratoryDetector
from hemascope.uncertainty.ood import LabelledOutputs, OODDetector, fit_ood_detector
from hemascope.uncertainty.temperature import fit_temperature, softmax

# Why a person should look at an image. The first is said where the set of an unsure one is empty.
NONE_LIKELY, SEVERAL_POSSIBLE = "no class is likely enough", "several classes possible"
OUT_OF_DISTRIBUTION = "unlike the training cells"

MISSED = 0.05  # share of images whose prediction set may lack the right class
UNSURE_SHARE = 0.03  # least share of calibration images that are sent to review as unsure
RIGHT = 0.97  # of the images that are not sent to review as unsure
OOD_SHARE = 0.005  # share of calibration images that count as unlike the training cells
POOR_TAIL = 0.002  # share of calibration images beyond each limit of image quality
LEAST_PER_CLASS = 20
EXPECTED = 20  # images that are taken to be right as often as they are sure, beside those there are


@dataclass(frozen=True)
class UncertaintyModel:
    """What `assess` needs to say how far a model's predictions can be trusted.

    It was fitted on `images` labelled images, which `calibrated_on` names. A class belongs to the
    prediction set if its probability is at least `set_threshold`, and to the class-conditional set
    if it is at least the class's own of the `class_thresholds` (C,). A prediction with less
    probability than `least_probability` is unsure. `ood_detector` scores how unlike the training
    cells an image is, and `quality` holds the limits of a good image. `laboratories` recognises
    the laboratory, where the bundle knows several, and
    `style` says what the images of the one that the network is for look like.
    """

    calibrated_on: str
    images: int
    set_threshold: float
    class_thresholds: tuple[float, ...]
    least_probability: float
    ood_detector: OODDetector
    quality: QualityLimits
    laboratories: LaboratoryDetector | None = None
    style: ImageStyle | None = None


class Assessment(NamedTuple):
    """Of N images: which classes are in the sets (N,C), OOD scores (N,), reasons for review, and
    laboratories."""

    sets: BoolArray
    class_sets: BoolArray
    ood_scores: FloatArray
    reasons: list[tuple[str, ...]]
    laboratories: list[Laboratory | None]


def assess(
    model: UncertaintyModel,
    probabilities: FloatArray,
    features: AnyFloatArray,
    style_statistics: AnyFloatArray,
    images: ImageArray,
) -> Assessment:
    """How far the predictions of N images can be trusted.

    Takes probabilities (N,C), features (N,F), style_statistics (N,T) and preprocessed images
    (N,S,S,3).
    """
    return assess_measured(
        model, probabilities, features, style_statistics, measure_quality(images)
    )


def assess_measured(
    model: UncertaintyModel,
    probabilities: FloatArray,
    features: AnyFloatArray,
    style_statistics: AnyFloatArray,
    measures: QualityMeasures,
) -> Assessment:
    """The same of N images whose quality is measured."""
    sets = prediction_sets(probabilities, model.set_threshold)
    ood_scores = model.ood_detector(features, style_statistics)
    unsure = probabilities.max(axis=1) < model.least_probability
    return Assessment(
        sets=sets,
        class_sets=prediction_sets(probabilities, model.class_thresholds),
        ood_scores=ood_scores,
        reasons=[
            (SEVERAL_POSSIBLE if chosen.any() else NONE_LIKELY,) * doubt
            + (OUT_OF_DISTRIBUTION,) * strange
            + poor
            for chosen, doubt, strange, poor in zip(
                sets,
                unsure.tolist(),
                (ood_scores > 1).tolist(),
                judge_quality(measures, model.quality),
                strict=True,
            )
        ],
        laboratories=_recognise(model, style_statistics),
    )


def _recognise(model: UncertaintyModel, style_statistics: AnyFloatArray) -> list[Laboratory | None]:
    if model.laboratories is None:
        return [None] * len(style_statistics)
    return list(model.laboratories(style_statistics))


def fit_uncertainty_model(
    outputs: LabelledOutputs,
    measures: Sequence[QualityMeasures],
    class_names: Sequence[str],
    calibrated_on: str,
) -> tuple[float, UncertaintyModel]:
    """A temperature and an UncertaintyModel, fitted on labelled images that training never saw.

    `measures` are the quality measures of the same images, batch by batch. The same number of
    images is used of each class, since it is not known how frequent each will be later. Raises
    ValueError where a class has fewer than 20 images.
    """
    counts = np.bincount(outputs.targets, minlength=len(class_names))
    if counts.min() < LEAST_PER_CLASS:
        raise ValueError(
            f"{counts.min()} readable images of class '{class_names[int(counts.argmin())]}'; "
            f"calibration needs at least {LEAST_PER_CLASS} of each class, which training never "
            "saw: label more of them, or train without that class and calibrate without its images"
        )
    chosen = _equally_many(outputs.targets, int(counts.min()))
    logits, targets = outputs.logits[chosen], outputs.targets[chosen]
    temperature = fit_temperature(logits, targets, expected=1.0)  # few may all be right
    probabilities = softmax(logits, temperature)
    calibration = LabelledOutputs(
        logits, outputs.features[chosen], outputs.style_statistics[chosen], targets
    )
    return temperature, UncertaintyModel(
        calibrated_on=calibrated_on,
        images=len(chosen),
        set_threshold=conformal_threshold(probabilities, targets, MISSED),
        class_thresholds=tuple(class_thresholds(probabilities, targets, MISSED).tolist()),
        least_probability=max(
            float(np.quantile(probabilities.max(axis=1), UNSURE_SHARE)),
            least_probability(probabilities, targets, EXPECTED),
        ),
        ood_detector=fit_ood_detector(calibration, OOD_SHARE),
        quality=fit_quality(measures, POOR_TAIL),
    )


def least_probability(probabilities: FloatArray, targets: AnyIntArray, expected: int) -> float:
    """The least probability of a sure prediction: of those above, 97 % should be right.

    That share is counted among these images (N,C), and `expected` more that are right as often as
    they are sure. It is 1 where no limit would do.
    """
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    sure = probabilities.max(axis=1)[order]
    right = (probabilities.argmax(axis=1) == targets)[order]
    numbers = np.arange(1, len(order) + 1)
    means = np.cumsum(sure) / numbers
    enough = np.flatnonzero((np.cumsum(right) + expected * means) / (numbers + expected) >= RIGHT)
    return float(sure[enough[-1]]) if enough.size else 1.0


def _equally_many(targets: AnyIntArray, per_class: int) -> NDArray[np.intp]:
    """Indices of `per_class` images of each class, drawn with a fixed seed."""
    random = np.random.default_rng(0)
    classes = np.unique(targets)
    drawn = [random.permutation(np.flatnonzero(targets == k))[:per_class] for k in classes]
    return np.sort(np.concatenate(drawn))
