"""Unlike the training cells? Scores that are the larger the less an image resembles them.

A detector is fitted on what the network makes of images of its classes, and then scores others,
(M,). `detectors` has them all, to be compared on equal terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray


@dataclass(frozen=True)
class Seen:
    """What a network makes of N images.

    Logits (N,C), features (N,F), texture (N,T), class indices (N,), -1 where it is none.
    """

    logits: AnyFloatArray
    features: AnyFloatArray
    texture: AnyFloatArray
    targets: AnyIntArray


@dataclass(frozen=True)
class Mahalanobis:
    """Squared distance to the nearest class mean (C,F), in units of the classes' common spread.

    `whiten` (F,F) turns that spread into unit variances. Lee et al., NeurIPS 2018.
    """

    means: FloatArray
    whiten: FloatArray

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        gaps = (np.asarray(features, dtype=np.float64) @ self.whiten)[:, None] - self.means
        return np.asarray((gaps * gaps).sum(axis=2).min(axis=1))


def fit_mahalanobis(
    features: AnyFloatArray, targets: AnyIntArray, shrinkage: float = 0.01
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
class Directions:
    """One minus the cosine to the nearest class's mean direction, `means` (C,F) of unit length."""

    means: FloatArray

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        wide = np.asarray(features, dtype=np.float64)
        return np.asarray(1.0 - (wide @ self.means.T).max(axis=1) / _lengths(wide))


def fit_directions(features: AnyFloatArray, targets: AnyIntArray) -> Directions:
    """From features (N,F) and class indices (N,)."""
    units = _directions(features)
    means = [units[targets == k].mean(axis=0) for k in np.unique(targets)]
    return Directions(_directions(np.stack(means)))


@dataclass(frozen=True)
class Unlike:
    """How unlike the known images: above 1, a cell unlike theirs, or a picture unlike theirs.

    The logarithms of a cell's distance by its features and of the picture's by its texture are
    taken less their `centre` (2,) and by their `spread` (2,). Either the mean of both passes its
    limit, or that of the texture does: the second tells another laboratory, however much its
    cells look like known ones.
    """

    directions: Directions
    texture: Mahalanobis
    centre: tuple[float, float]
    spread: tuple[float, float]
    mean_limit: float = 0.0
    texture_limit: float = 0.0

    def __call__(self, features: AnyFloatArray, texture: AnyFloatArray) -> FloatArray:
        means, textures = self.parts(features, texture)
        return np.asarray(
            np.exp(np.maximum(means - self.mean_limit, textures - self.texture_limit))
        )

    def parts(
        self, features: AnyFloatArray, texture: AnyFloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The mean of both, and that of the texture, (N,) each."""
        logs = np.log(np.maximum((self.directions(features), self.texture(texture)), 1e-12))
        cells = (logs[0] - self.centre[0]) / self.spread[0]
        textures = (logs[1] - self.centre[1]) / self.spread[1]
        return (cells + textures) / 2, textures


def fit_unlike(known: Seen, share: float = 0.005) -> Unlike:
    """From images of the known classes, of which at most this share scores above 1."""
    directions = fit_directions(known.features, known.targets)
    texture = fit_mahalanobis(known.texture, known.targets)
    logs = np.log(np.maximum([directions(known.features), texture(known.texture)], 1e-12))
    centre, spread = logs.mean(axis=1).tolist(), logs.std(axis=1).tolist()
    found = Unlike(directions, texture, (centre[0], centre[1]), (spread[0], spread[1]))
    means, textures = found.parts(known.features, known.texture)
    quantile = 1 - share / 2
    return replace(
        found,
        mean_limit=float(np.quantile(means, quantile)),
        texture_limit=float(np.quantile(textures, quantile)),
    )


def _directions(features: AnyFloatArray) -> FloatArray:
    wide = np.asarray(features, dtype=np.float64)
    return np.asarray(wide / _lengths(wide)[:, None])


def _lengths(wide: FloatArray) -> FloatArray:
    return np.asarray(np.maximum(np.sqrt((wide * wide).sum(axis=1)), 1e-12))
