"""Out-of-distribution detectors that are compared with the one that ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hemascope.arrays import FloatArray
from hemascope.uncertainty.ood import (
    Seen,
    _directions,
    fit_directions,
    fit_mahalanobis,
    fit_unlike,
)
from hemascope.uncertainty.temperature import log_sum_exp, softmax

Detector: TypeAlias = Callable[[Seen], FloatArray]


def detectors(known: Seen) -> dict[str, Detector]:
    """Every detector there is, by name, fitted on the same images of the network's classes."""
    distance = fit_mahalanobis(known.features, known.targets)
    neighbours = fit_neighbours(known.features)
    texture = fit_mahalanobis(known.texture, known.targets)
    directions = fit_directions(known.features, known.targets)
    unlike = fit_unlike(known)
    both = _Sum((lambda seen: neighbours(seen.features), lambda seen: texture(seen.texture)), known)
    return {
        "maximum probability": lambda seen: max_probability(seen.logits),
        "energy": lambda seen: energy(seen.logits),
        "Mahalanobis, features": lambda seen: distance(seen.features),
        "nearest neighbours, features": lambda seen: neighbours(seen.features),
        "class directions, features": lambda seen: directions(seen.features),
        "Mahalanobis, texture": lambda seen: texture(seen.texture),
        "nearest neighbours + texture": both,
        "as it ships": lambda seen: unlike(seen.features, seen.texture),
    }


class _Sum:
    """Detectors added up, each as the logarithm of its score in deviations of the known images'."""

    def __init__(self, parts: tuple[Detector, ...], known: Seen) -> None:
        logs = [np.log(np.maximum(part(known), 1e-12)) for part in parts]
        self.parts = [(part, log.mean(), log.std()) for part, log in zip(parts, logs, strict=True)]

    def __call__(self, seen: Seen) -> FloatArray:
        logs = [
            (np.log(np.maximum(part(seen), 1e-12)) - mean) / deviation
            for part, mean, deviation in self.parts
        ]
        return np.asarray(np.sum(logs, axis=0))


def max_probability(logits: FloatArray) -> FloatArray:
    """One minus the largest probability. Hendrycks and Gimpel, ICLR 2017."""
    return np.asarray(1.0 - softmax(logits).max(axis=1))


def energy(logits: FloatArray) -> FloatArray:
    """The free energy, -log Σ exp(logits). Liu et al., NeurIPS 2020."""
    return -log_sum_exp(logits)


@dataclass(frozen=True)
class Neighbours:
    """Distance of directions to the k-th nearest of the known images, (N,F) of unit length.

    Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022.
    """

    known: FloatArray
    k: int

    def __call__(self, features: FloatArray) -> FloatArray:
        cosine = _directions(features) @ self.known.T  # (M,N)
        nearest = -np.partition(-cosine, self.k - 1, axis=1)[:, self.k - 1]
        return np.asarray(np.sqrt(np.maximum(0.0, 2 - 2 * nearest)))


def fit_neighbours(features: FloatArray, k: int = 10) -> Neighbours:
    """From features (N,F). Raises ValueError for fewer than k of them."""
    if not 1 <= k <= len(features):
        raise ValueError(f"{len(features)} images have no {k}th neighbour")
    return Neighbours(_directions(features), k)
