"""How far an adapted model can be trusted, fitted to the few cells that it was adapted to.

What the model says of a cell is taken from a fit without that cell. Where cells are few, each value
stays near what held in general: so many `PRIOR` cells are taken to have been seen that behaved as
the general values say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray
from hemascope.bundle.adaptation import CellMeasures
from hemascope.uncertainty.image_quality import QualityLimits
from hemascope.uncertainty.image_style import style_of
from hemascope.uncertainty.laboratory import LaboratoryDetector, whitening
from hemascope.uncertainty.model import MISSED, OOD_SHARE, UncertaintyModel, least_probability
from hemascope.uncertainty.ood import Directions, OODDetector, mean_directions
from hemascope.uncertainty.temperature import fit_temperature, softmax

PRIOR = 20  # cells whose behaviour the general values stand for
PRIOR_PER_CLASS = 5  # the same of one class
WITHIN = 0.99  # share of the laboratory's own images within its limit
LEAST_PER_MEAN = 5  # cells of a class that has a mean of its own


@dataclass(frozen=True)
class General:
    """What held before: the temperature, and the UncertaintyModel of a calibrated model."""

    temperature: float
    model: UncertaintyModel | None


def fit_few_cells(
    held_out: FloatArray, folds: AnyIntArray, cells: CellMeasures, general: General, name: str
) -> tuple[float, UncertaintyModel]:
    """A temperature and an UncertaintyModel from logits (N,C) of cells that were held out.

    `folds` (N,) say which cells were held out together, and `name` is the laboratory.
    """
    targets, model = np.array(cells.targets), general.model
    temperature = fit_temperature(held_out, targets, general.temperature)
    probabilities = softmax(held_out, temperature)
    of_targets = probabilities[np.arange(len(targets)), targets]
    before = None if model is None else model.set_threshold
    whole = shrink_threshold(of_targets, before, PRIOR)
    known = len(model.class_thresholds) if model is not None else 0
    return temperature, UncertaintyModel(
        calibrated_on=f"{name}, the cells it was adapted to, each held out",
        images=len(targets),
        set_threshold=whole,
        class_thresholds=tuple(
            shrink_threshold(
                of_targets[targets == k],
                model.class_thresholds[k] if model is not None and k < known else whole,
                PRIOR_PER_CLASS,
            )
            for k in range(held_out.shape[1])
        ),
        least_probability=least_probability(probabilities, targets, PRIOR),
        ood_detector=fit_directions(cells, targets, folds, held_out.shape[1], model),
        quality=widen_limits(cells.quality, model),
        laboratories=fit_laboratory(cells.style_statistics, targets, folds, name),
        style=style_of(cells.style),
    )


def shrink_threshold(of_targets: FloatArray, general: float | None, prior: int) -> float:
    """The probability that all but 5 % of the right classes reach, between a general one and that
    of these cells (N,)."""
    if not len(of_targets):
        return general or 0.0
    own = float(np.quantile(of_targets, MISSED, method="lower"))
    share = len(of_targets) / (len(of_targets) + prior)
    return own if general is None else share * own + (1 - share) * general


def fit_directions(
    cells: CellMeasures,
    targets: AnyIntArray,
    folds: AnyIntArray,
    num_classes: int,
    general: UncertaintyModel | None,
) -> OODDetector:
    """A detector of unlike cells, whose distances are measured on cells that were held out."""
    known = None if general is None else general.ood_detector.directions.means
    logs = np.empty(len(targets))
    for fold in np.unique(folds):
        out = folds == fold
        means = _class_directions(cells.features[~out], targets[~out], num_classes, known)
        found = Directions(means)(cells.features[out, 0])
        logs[out] = np.log(np.maximum(found, 1e-12))
    limit = NormalDist().inv_cdf(1 - OOD_SHARE)
    if general is not None and general.ood_detector.style is None:
        limit = general.ood_detector.mean_limit
    return OODDetector(
        Directions(_class_directions(cells.features, targets, num_classes, known)),
        None,
        (float(logs.mean()), 0.0),
        (float(max(logs.std(), 1e-3)), 1.0),
        mean_limit=limit,
        style_limit=0.0,
    )


def _class_directions(
    features: AnyFloatArray, targets: AnyIntArray, num_classes: int, known: FloatArray | None
) -> FloatArray:
    """Mean directions of the classes (C,F), from views (N,V,F) and those `known` (≤C,F) before.

    A class without cells is taken to have moved as the others have. Only classes of which there are
    cells, or that were known, have a row.
    """
    flat = features.reshape(-1, features.shape[2])
    views = targets.repeat(features.shape[1])
    present = np.unique(targets)
    own = dict(zip(present.tolist(), mean_directions(flat, views), strict=True))
    if known is None:
        return np.stack(list(own.values()))
    moved = [own[k] - known[k] for k in own if k < len(known)]
    shift = np.mean(moved, axis=0) if moved else np.zeros(known.shape[1])
    rows = []
    for k in range(num_classes):
        count = int((targets == k).sum())
        if k >= len(known):
            rows += [own[k]] if k in own else []
            continue
        expected = known[k] + shift
        mixed = (count * own.get(k, expected) + PRIOR_PER_CLASS * expected) / (
            count + PRIOR_PER_CLASS
        )
        rows.append(mixed / np.linalg.norm(mixed))
    return np.stack(rows)


def widen_limits(quality: FloatArray, general: UncertaintyModel | None) -> QualityLimits:
    """The general limits of image quality, wide enough for all these images (N,3)."""
    sharpness, contrast, contact = quality[:, 0].min(), quality[:, 1].min(), quality[:, 2].max()
    if general is None:
        return QualityLimits(float(sharpness), float(contrast), float(contact))
    limits = general.quality
    return QualityLimits(
        float(min(sharpness, limits.sharpness)),
        float(min(contrast, limits.cell_contrast)),
        float(max(contact, limits.edge_contact)),
    )


def fit_laboratory(
    style_statistics: AnyFloatArray, targets: AnyIntArray, folds: AnyIntArray, name: str
) -> LaboratoryDetector:
    """A detector of one laboratory, whose limit is taken from images that were held out.

    Distances are taken to be spread as a logarithmic normal distribution.
    """
    wide, groups = np.asarray(style_statistics, dtype=np.float64), _groups(targets)
    logs = np.empty(len(wide))
    for fold in np.unique(folds):
        out = folds == fold
        detector = _one_laboratory(wide[~out], groups[~out], name)
        logs[out] = [math.log(max(place.distance, 1e-12)) for place in detector(wide[out])]
    limit = math.exp(logs.mean() + NormalDist().inv_cdf(WITHIN) * logs.std())
    whole = _one_laboratory(wide, groups, name)
    return LaboratoryDetector(whole.names, whole.means, whole.whiten, whole.laboratory_of, (limit,))


def _groups(targets: AnyIntArray) -> AnyIntArray:
    """The class of each cell, and -1 for those of classes with few cells, which share one mean."""
    counts = np.bincount(targets)[targets]
    return np.where(counts >= LEAST_PER_MEAN, targets, -1)


def _one_laboratory(wide: FloatArray, groups: AnyIntArray, name: str) -> LaboratoryDetector:
    present, own = np.unique(groups, return_inverse=True)
    means = np.stack([wide[groups == k].mean(axis=0) for k in present])
    # The fewer images, the less their covariance is believed.
    whiten = whitening(wide - means[own], wide.shape[1] / (wide.shape[1] + len(wide)))
    return LaboratoryDetector((name,), means @ whiten, whiten, (0,) * len(means), (1.0,))
