"""Adaptation: what an adapted bundle keeps of the cells that it was adapted to, and of the model
that it comes from, so that more cells can be added later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray
from hemascope.uncertainty.model import UncertaintyModel


@dataclass(frozen=True)
class LabelledCells:
    """So many cells of each class, what they are called, and the day on which they were used.

    `um_per_pixel` is how many micrometres a pixel of their images is wide; None for the scale of
    the training images, and where the images differ.
    """

    name: str
    date: str
    counts: dict[str, int]
    um_per_pixel: float | None = None


@dataclass(frozen=True)
class CellMeasures:
    """What is kept of N labelled cells; no image of one.

    `features` (N,V,F) are of V views of each, the first as the model sees it, `style_statistics`
    (N,T) and `style` (N,5), the measures of `measure_style`, of the first alone; bundles of earlier
    versions have the first four of these. `targets` are class indices, and `quality` (N,3) the
    measures of image quality.
    """

    features: AnyFloatArray
    style_statistics: AnyFloatArray
    style: FloatArray
    quality: FloatArray
    targets: tuple[int, ...]

    def __add__(self, other: CellMeasures) -> CellMeasures:
        """Both, one after the other."""
        common = min(self.style.shape[1], other.style.shape[1])
        return CellMeasures(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.style_statistics, other.style_statistics]),
            np.concatenate([self.style[:, :common], other.style[:, :common]]),
            np.concatenate([self.quality, other.quality]),
            self.targets + other.targets,
        )


@dataclass(frozen=True)
class Adaptation:
    """The cells that a bundle was adapted to, and the general model that it was adapted from.

    `weight` (C,ΣF) and `bias` (M,C) are the last layers of the general model's M members, side by
    side, of `widths` F. `temperature` and `uncertainty` are the general model's.
    """

    laboratory: str
    sets: tuple[LabelledCells, ...]
    cells: CellMeasures
    name: str
    training_data: str
    weight: FloatArray
    bias: FloatArray
    widths: tuple[int, ...]
    temperature: float
    uncertainty: UncertaintyModel | None
