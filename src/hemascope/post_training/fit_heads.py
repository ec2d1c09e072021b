"""Last layers for another laboratory, from a few labelled cells and the layers that there were."""

from __future__ import annotations

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray
from hemascope.bundle.heads import Head, Heads

PULL = 0.1  # towards the old layer, in standard deviations of the features
LEAST_SPREAD = 0.1  # of all features' spread, which a feature that hardly varies is taken to have
TOLERANCE = 1e-6  # of the loss, relative: the steps after that change no answer, and are most


def fit_heads(features: AnyFloatArray, targets: AnyIntArray, old: Heads) -> Heads:
    """Each member's layer, fitted to its own part of features (N,ΣF) by `fit_head`."""
    pairs = zip(old.members, old.parts(features), strict=True)
    return Heads(tuple(fit_head(part, targets, head) for head, part in pairs))


def fit_head(features: AnyFloatArray, targets: AnyIntArray, old: Head) -> Head:
    """The layer that makes the labels of features (N,F) likely, and is not far from the old one.

    Logistic regression with a normal prior around the old weights, so that classes of which
    there is no cell keep what they have learnt. Needs scipy. Chelba and Acero, "Adaptation of
    maximum entropy capitalizer: little data can help a lot", EMNLP 2004.
    """
    from scipy.optimize import minimize

    wide = np.asarray(features, dtype=np.float64)
    centre, spread = wide.mean(axis=0), wide.std(axis=0) + LEAST_SPREAD * wide.std()
    # No step leaves the span of the inputs, which has R dimensions, at most N.
    basis, coordinates = np.linalg.qr(((wide - centre) / spread).T)  # (F,R), (R,N)
    inputs = coordinates.T
    start = old(wide)  # (N,C)
    rows, num_classes, width = np.arange(len(targets)), len(old.bias), len(coordinates)
    labels = np.eye(num_classes)[targets]

    def loss(step: FloatArray) -> tuple[float, FloatArray]:
        weight, bias = np.split(step.reshape(num_classes, width + 1), [width], axis=1)
        logits = start + inputs @ weight.T + bias[:, 0]
        logits -= logits.max(axis=1, keepdims=True)
        weights = np.exp(logits)
        total = weights.sum(axis=1, keepdims=True)
        value = (np.log(total[:, 0]) - logits[rows, targets]).mean()
        error = (weights / total - labels) / len(targets)  # (N,C)
        gradient = np.hstack([error.T @ inputs + PULL * weight, error.sum(axis=0)[:, None]])
        return float(value + PULL / 2 * (weight**2).sum()), gradient.ravel()

    none = np.zeros(num_classes * (width + 1))
    found = minimize(loss, none, jac=True, method="L-BFGS-B", options={"ftol": TOLERANCE})
    step = found.x.reshape(num_classes, width + 1)
    weight = step[:, :width] @ basis.T / spread
    return Head(old.weight + weight, old.bias + step[:, width] - weight @ centre)
