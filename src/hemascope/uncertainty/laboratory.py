"""Which laboratory an image comes from, as far as its stain, light and camera tell.

That is a question of its own, beside whether the cell can be named: a laboratory that the model has
never seen stains every cell otherwise, and what it shows may still be a plain neutrophil.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray
from hemascope.predictions import Laboratory
from hemascope.uncertainty.ood import whitening_of

WITHIN = 0.99  # share of a laboratory's own images within its limit
SHRINKAGE = 0.01
LEAST_PER_GROUP = 5


@dataclass(frozen=True)
class LaboratoryDetector:
    """Compares the style statistics of images (N,T) with those of L known laboratories.

    Each laboratory has one mean per class, since cells colour an image too: `means` (M,T), of the
    laboratories `laboratory_of` (M,), in the space that `whiten` (T,T) maps to, where images differ
    equally in all directions within a laboratory's class. `limits` (L,) are the distances that
    99 % of each laboratory's own images keep. The first of the `names` is the laboratory that the
    bundle's own network is for, and its fallback model is for all others.
    """

    names: tuple[str, ...]
    means: FloatArray
    whiten: FloatArray
    laboratory_of: tuple[int, ...]
    limits: tuple[float, ...]

    def __call__(self, style_statistics: AnyFloatArray) -> list[Laboratory]:
        """The nearest laboratory of each image, and how far it is in units of its limit."""
        nearest, distances = self._nearest(style_statistics)
        ratios = distances / np.array(self.limits)[nearest]
        return [
            Laboratory(self.names[index], float(ratio))
            for index, ratio in zip(nearest, ratios, strict=True)
        ]

    def _nearest(self, style_statistics: AnyFloatArray) -> tuple[AnyIntArray, FloatArray]:
        """The nearest laboratory of each image, (N,), and its distance, (N,)."""
        whitened = np.asarray(style_statistics, dtype=np.float64) @ self.whiten
        gaps = np.linalg.norm(whitened[:, None] - self.means, axis=2)  # (N,M)
        best = gaps.argmin(axis=1)
        return np.array(self.laboratory_of)[best], gaps[np.arange(len(gaps)), best]


def fit_laboratory_detector(
    style_statistics: AnyFloatArray, laboratories: Sequence[str], targets: AnyIntArray
) -> LaboratoryDetector:
    """Fits a detector to images (N,T) of known laboratories; the first one named is the home.

    Means and covariance come from every other image, and the limits from the rest, because an
    image is nearer to a mean that it is part of. Raises ValueError where no class of a laboratory
    has five images in both halves.
    """
    wide, names = np.asarray(style_statistics, dtype=np.float64), tuple(dict.fromkeys(laboratories))
    own = np.array([names.index(name) for name in laboratories])
    half = np.zeros(len(wide), dtype=bool)
    means, laboratory_of, rest = [], [], []
    for index, name in enumerate(names):
        for target in np.unique(targets[own == index]):
            group = np.flatnonzero((own == index) & (targets == target))
            half[group[::2]] = True
            if len(group) // 2 >= LEAST_PER_GROUP:
                mean = wide[group[::2]].mean(axis=0)
                means.append(mean)
                laboratory_of.append(index)
                rest.append(wide[group[::2]] - mean)
        if index not in laboratory_of:
            raise ValueError(f"{name}: no class has {2 * LEAST_PER_GROUP} images")
    whiten = whitening(np.concatenate(rest))
    detector = LaboratoryDetector(
        names, np.stack(means) @ whiten, whiten, tuple(laboratory_of), (1.0,) * len(names)
    )
    _, distances = detector._nearest(wide)
    limits = [float(np.quantile(distances[~half & (own == k)], WITHIN)) for k in range(len(names))]
    return LaboratoryDetector(names, detector.means, whiten, detector.laboratory_of, tuple(limits))


def whitening(rest: FloatArray, shrinkage: float = SHRINKAGE) -> FloatArray:
    """The map (T,T) to a space where these deviations (N,T) have the identity as covariance.

    A share of their mean variance is added to that in each direction.
    """
    covariance = rest.T @ rest / len(rest)
    level = max(float(np.trace(covariance)) / len(covariance), 1e-12)
    return whitening_of(covariance + shrinkage * level * np.eye(len(covariance)))
