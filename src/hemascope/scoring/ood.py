"""Unlike the training cells? Scores that are the larger the less an image resembles them.

A detector is fitted on what the network makes of images of its classes, and then scores others,
(M,). `detectors` has them all, to be compared on equal terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hemascope.scoring.calibration import log_sum_exp, softmax

Floats = NDArray[np.floating]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a network makes of N images.

    Logits (N,C), features (N,F), texture (N,T), class indices (N,), -1 where it is none.
    """

    logits: Floats
    features: Floats
    texture: Floats
    targets: NDArray[np.integer]


Detector: TypeAlias = Callable[[Seen], Scores]


def detectors(known: Seen) -> dict[str, Detector]:
    """Every detector there is, by name, fitted on the same images of the network's classes."""
    distance = fit_mahalanobis(known.features, known.targets)
    neighbours = fit_neighbours(known.features)
    texture = fit_mahalanobis(known.texture, known.targets)
    both = _Sum((lambda seen: neighbours(seen.features), lambda seen: texture(seen.texture)), known)
    return {
        "maximum probability": lambda seen: max_probability(seen.logits),
        "energy": lambda seen: energy(seen.logits),
        "Mahalanobis, features": lambda seen: distance(seen.features),
        "nearest neighbours, features": lambda seen: neighbours(seen.features),
        "Mahalanobis, texture": lambda seen: texture(seen.texture),
        "nearest neighbours + texture": both,
    }


class _Sum:
    """Detectors added up, each as the logarithm of its score in deviations of the known images'."""

    def __init__(self, parts: tuple[Detector, ...], known: Seen) -> None:
        logs = [np.log(np.maximum(part(known), 1e-12)) for part in parts]
        self.parts = [(part, log.mean(), log.std()) for part, log in zip(parts, logs, strict=True)]

    def __call__(self, seen: Seen) -> Scores:
        logs = [
            (np.log(np.maximum(part(seen), 1e-12)) - mean) / deviation
            for part, mean, deviation in self.parts
        ]
        return np.asarray(np.sum(logs, axis=0))


def max_probability(logits: Floats) -> Scores:
    """One minus the largest probability. Hendrycks and Gimpel, ICLR 2017."""
    return np.asarray(1.0 - softmax(logits).max(axis=1))


def energy(logits: Floats) -> Scores:
    """The free energy, -log Σ exp(logits). Liu et al., NeurIPS 2020."""
    return -log_sum_exp(logits)


@dataclass(frozen=True)
class Mahalanobis:
    """Squared distance to the nearest class mean (C,F), in units of the classes' common spread.

    `whiten` (F,F) turns that spread into unit variances. Lee et al., NeurIPS 2018.
    """

    means: Scores
    whiten: Scores

    def __call__(self, features: Floats) -> Scores:
        gaps = (np.asarray(features, dtype=np.float64) @ self.whiten)[:, None] - self.means
        return np.asarray((gaps**2).sum(axis=2).min(axis=1))


def fit_mahalanobis(
    features: Floats, targets: NDArray[np.integer], shrinkage: float = 0.01
) -> Mahalanobis:
    """From features (N,F) and class indices (N,).

    The common covariance is mixed with `shrinkage` parts of its mean variance, so that directions
    in which the training images hardly differ do not rule.
    """
    wide = np.asarray(features, dtype=np.float64)
    classes = np.unique(targets)
    means = np.stack([wide[targets == k].mean(axis=0) for k in classes])  # (C,F)
    rest = wide - means[np.searchsorted(classes, targets)]
    covariance = rest.T @ rest / len(rest)
    level = np.trace(covariance) / len(covariance)
    covariance = (1 - shrinkage) * covariance + shrinkage * level * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(values)  # (F,F)
    return Mahalanobis(means @ whiten, whiten)


@dataclass(frozen=True)
class Neighbours:
    """Distance of directions to the k-th nearest of the known images, (N,F) of unit length.

    Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022.
    """

    known: Scores
    k: int

    def __call__(self, features: Floats) -> Scores:
        cosine = _directions(features) @ self.known.T  # (M,N)
        nearest = -np.partition(-cosine, self.k - 1, axis=1)[:, self.k - 1]
        return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * nearest)))


def fit_neighbours(features: Floats, k: int = 10) -> Neighbours:
    """From features (N,F). Raises ValueError for fewer than k of them."""
    if not 1 <= k <= len(features):
        raise ValueError(f"{len(features)} images have no {k}th neighbour")
    return Neighbours(_directions(features), k)


def _directions(features: Floats) -> Scores:
    wide = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.maximum(lengths, 1e-12))
