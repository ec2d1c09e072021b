"""Last layers for another laboratory, from a few labelled cells and the layers that there were."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray
from hemascope.bundle.heads import Head, Heads
from hemascope.post_training.minimise import minimise
from hemascope.uncertainty.known_features import MemberFeatures
from hemascope.uncertainty.temperature import log_sum_exp, softmax

PULL = 0.3  # towards the old layer, in standard deviations of the features
OFFSET_SPREAD = 0.8  # of the biases of classes, in logits, between laboratories
DISCRIMINANT = 0.03  # share of the linear discriminant, whose logits are far too large
LEAST_CHANCE = 1e-12  # that a cell is of the classes with cells
LEAST_SPREAD = 0.1  # of all features' spread, which a feature that hardly varies is taken to have
TOLERANCE = 1e-6  # of the loss, relative: the steps after that change no prediction, and are most


def fit_heads(
    features: AnyFloatArray,
    targets: AnyIntArray,
    old: Heads,
    cells: int | None = None,
    known: Sequence[MemberFeatures] | None = None,
) -> Heads:
    """Each member's layer, fitted to its own part of features (N,ΣF) by `fit_head`."""
    parts = old.split_features(features)
    each = [None] * len(parts) if known is None else known
    return Heads(
        tuple(
            fit_head(part, targets, head, cells, own)
            for head, part, own in zip(old.members, parts, each, strict=True)
        )
    )


def fit_head(
    features: AnyFloatArray,
    targets: AnyIntArray,
    old: Head,
    cells: int | None = None,
    known: MemberFeatures | None = None,
) -> Head:
    """The layer that makes the labels of features (N,F) likely, and is not far from the old one.

    Logistic regression among the classes of which there are cells, with a normal prior around the
    old weights. Each class weighs as much as the square root of its number of cells. Chelba and
    Acero, "Adaptation of maximum entropy capitalizer: little data can help a lot", EMNLP 2004.

    A class without cells keeps its weights: what it was against the others together, it stays,
    but for an offset that lowers it where many of the `cells` would be named as it. Each of these
    is in the features as often; by default once. Where the features of known cells are given, it
    keeps what it was of features that have moved as those of the labelled classes have; and where
    all classes are known, a little of the linear discriminant of the classes that have moved so is
    added to them. A new class may be as varied as blasts are, which a mean does not tell.
    """
    wide, present = np.asarray(features, dtype=np.float64), np.unique(targets)
    rows = np.searchsorted(present, targets)
    weights = 1 / np.sqrt(np.bincount(rows)[rows])
    weights /= weights.sum()
    cells = cells or len(targets)
    after = _fit_present(wide, rows, weights, Head(old.weight[present], old.bias[present]))
    shift = 0.0 if known is None else known.shift(wide, targets)
    new = Head(old.weight.copy(), old.bias - (old.weight * shift).sum(axis=1))
    before = Head(new.weight[present], new.bias[present])
    level = np.median(log_sum_exp(after(wide)) - log_sum_exp(before(wide)))
    new.weight[present], new.bias[present] = after.weight, after.bias - level
    if known is not None and known.is_known.all():
        counts = np.bincount(targets, minlength=len(old.bias)) * cells / len(targets)
        weight, bias = known.discriminant(wide, targets, counts)
        new = Head(new.weight + DISCRIMINANT * weight, new.bias + DISCRIMINANT * bias)
    absent = np.setdiff1d(np.arange(len(old.bias)), present)
    if absent.size:
        new.bias[absent] += _fit_offsets(new(wide), absent, weights, cells)
    return new


def _fit_present(wide: FloatArray, targets: AnyIntArray, weights: FloatArray, old: Head) -> Head:
    """The layer of the classes that have cells, fitted to features (N,F) of these weights (N,)."""
    centre, spread = wide.mean(axis=0), wide.std(axis=0) + LEAST_SPREAD * wide.std()
    inputs, basis = _reduce((wide - centre) / spread)
    start, width, classes = old(wide), inputs.shape[1], len(old.bias)  # (N,C)
    rows, labels = np.arange(len(targets)), np.eye(classes)[targets]

    def loss(step: FloatArray) -> tuple[float, FloatArray]:
        weight, bias = np.split(step.reshape(classes, width + 1), [width], axis=1)
        logits = start + inputs @ weight.T + bias[:, 0]
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        total = chances.sum(axis=1, keepdims=True)
        value = weights @ (np.log(total[:, 0]) - logits[rows, targets])
        error = (chances / total - labels) * weights[:, None]  # (N,C)
        gradient = np.hstack([error.T @ inputs + PULL * weight, error.sum(axis=0)[:, None]])
        return float(value + PULL / 2 * (weight**2).sum()), gradient.ravel()

    step = minimise(loss, np.zeros(classes * (width + 1)), TOLERANCE).reshape(classes, width + 1)
    weight = (step[:, :width] if basis is None else step[:, :width] @ basis.T) / spread
    return Head(old.weight + weight, old.bias + step[:, width] - weight @ centre)


def _reduce(scaled: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Inputs (N,R) and the basis (F,R) that they are coordinates in; None where it is no smaller.

    No step of the fit leaves the span of the inputs, which has at most N dimensions.
    """
    if len(scaled) >= scaled.shape[1]:
        return scaled, None
    basis, coordinates = np.linalg.qr(scaled.T)
    return coordinates.T, basis


def _fit_offsets(
    logits: FloatArray, absent: AnyIntArray, weights: FloatArray, cells: int
) -> FloatArray:
    """What to add to the logits (N,C) of the classes without cells, as no cell is one of them.

    How biases differ between laboratories is taken to be normal, so that few cells say little.
    """
    pull = 1 / (OFFSET_SPREAD**2 * cells)

    def loss(offsets: FloatArray) -> tuple[float, FloatArray]:
        moved = logits.copy()
        moved[:, absent] += offsets
        chances = softmax(moved)
        others = chances[:, absent]  # (N,A)
        left = np.maximum(1 - others.sum(axis=1), LEAST_CHANCE)
        value = -weights @ np.log(left) + pull / 2 * (offsets**2).sum()
        return float(value), weights @ others + pull * offsets

    return minimise(loss, np.zeros(len(absent)), TOLERANCE)
