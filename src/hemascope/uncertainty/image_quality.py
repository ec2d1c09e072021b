"""Does an image show one whole, sharp cell? Three measures, and the limits of a good image.

All work on preprocessed images (N,S,S,3) uint8, in optical density relative to the image's own
ground (its empty, bright part), so that brightness and tint of the light do not matter. `stain` is
the density in green minus that in blue: azure and eosin, the dyes of nuclei, granules and
platelets, absorb green far more than blue, while the haemoglobin of red cells absorbs both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from hemascope.arrays import Float32Array, FloatArray, ImageArray

BLURRED, CUT_OFF, NO_CELL = "blurred", "cut off", "no cell in the image"

SAMPLE = 64  # about this many pixels per side are measured, whatever the image's size
GROUND = 0.95  # the ground is as bright as this quantile of the pixels
STAINED = 0.1  # stain above which a pixel is hardly part of a red cell
LEAST = 1e-3  # mean stain that is added to the total, so that an empty image has no far-off centre
CLEARANCE = 2 / 3  # the limit of contrast, as a fraction of that of the palest good cells
SMALLEST = 16  # pixels per side, as in InputSpec
FLAT = 5e-5  # added to the mean squared slope, so that noise on an even ground is not sharp
DARKNESS = -np.log10(np.maximum(np.arange(256), 1)).astype(np.float32)


class QualityMeasures(NamedTuple):
    """Three figures per image, (N,) each; see the functions of the same names."""

    sharpness: FloatArray
    cell_contrast: FloatArray
    edge_contact: FloatArray


@dataclass(frozen=True)
class QualityLimits:
    """The least sharpness, the least cell contrast and the most edge contact of a good image.

    They hold for images of the size that they were fitted on.
    """

    sharpness: float
    cell_contrast: float
    edge_contact: float


def fit_quality(batches: Iterable[QualityMeasures], tail: float = 0.005) -> QualityLimits:
    """The limits of good images: each excludes at most a share `tail` of those measured.

    The measures are those of good images that training never saw, batch by batch. Nearly all of the
    palest are small platelets. So that these are not excluded, the limit of contrast is lowered to
    two thirds, which is still well above the contrast of red cells. Raises ValueError without
    images, or for a tail outside 0 to 0.5.
    """
    if not 0 <= tail < 0.5:
        raise ValueError(f"the tail must lie between 0 and 0.5, not {tail}")
    measured = list(batches)
    if not sum(len(batch.sharpness) for batch in measured):
        raise ValueError("limits of quality cannot be fitted on no images")
    sharp, contrast, contact = (np.concatenate(values) for values in zip(*measured, strict=True))
    return QualityLimits(
        sharpness=float(np.quantile(sharp, tail, method="lower")),
        cell_contrast=CLEARANCE * float(np.quantile(contrast, tail, method="lower")),
        edge_contact=float(np.quantile(contact, 1 - tail, method="higher")),
    )


def judge_quality(measures: QualityMeasures, limits: QualityLimits) -> list[tuple[str, ...]]:
    """Why a person should look at each of N images that are measured; empty for a good image.

    An image whose cell is cut off by the edge is not also reported as one without a cell, and an
    image without a cell is not also reported as blurred.
    """
    reasons = []
    for sharp, contrast, contact in zip(*measures, strict=True):
        cut_off = contact > limits.edge_contact
        no_cell = contrast < limits.cell_contrast and not cut_off
        blurred = sharp < limits.sharpness and not no_cell
        flags = ((BLURRED, blurred), (CUT_OFF, cut_off), (NO_CELL, no_cell))
        reasons.append(tuple(name for name, is_so in flags if is_so))
    return reasons


def measure_quality(images: ImageArray) -> QualityMeasures:
    """All measures of images (N,S,S,3) uint8. Raises ValueError as `subsample` does."""
    sample = subsample(images)
    density: Float32Array = DARKNESS.take(sample, mode="clip")  # twice as fast as indexing
    stain = measure_stain(density, ground_density(sample))
    sharp = np.array([sharpness(green) for green in density[0]], np.float64)
    return QualityMeasures(sharp, cell_contrast(stain), edge_contact(stain))


def subsample(images: ImageArray) -> ImageArray:
    """Green and blue, (2,N,n,n): every k-th pixel, so that n is about 64.

    Raises ValueError unless the images are (N,S,S,3) uint8, of 16 pixels a side or more.
    """
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(
            f"images of shape {shape} and type {images.dtype}; expected (N,S,S,3) of uint8"
        )
    if shape[1] < SMALLEST:
        raise ValueError(f"images of {shape[1]} pixels a side; at least {SMALLEST} are needed")
    step = max(1, round(shape[1] / SAMPLE))
    return np.ascontiguousarray(images[:, ::step, ::step, 1:].transpose(3, 0, 1, 2))


def ground_density(sample: ImageArray) -> Float32Array:
    """Optical density of each image's ground in green and blue, (2,N), from every fourth pixel."""
    few = sample[:, :, ::2, ::2].reshape(*sample.shape[:2], -1)
    few.sort(axis=2, kind="stable")  # a radix sort, on images faster than a partition
    ground: Float32Array = DARKNESS[few[:, :, int(GROUND * few.shape[2])]]
    return ground


def measure_stain(density: Float32Array, ground: Float32Array) -> Float32Array:
    """Stain, averaged over 2×2 pixels and relative to the ground: (N,m,m) with m = n/2.

    `density` (2,N,n,n) and `ground` (2,N) are in green and blue.
    """
    stain = density[0] - density[1]
    even = stain.shape[1] // 2 * 2
    stain = stain[:, :even, :even]
    rows = stain[:, ::2] + stain[:, 1::2]
    means: Float32Array = rows[:, :, ::2] + rows[:, :, 1::2]
    means *= 0.25
    means -= (ground[0] - ground[1])[:, None, None]
    return means


def sharpness(density: Float32Array) -> float:
    """Curvature of one optical density (n,n) relative to its slope; 0 for an even image.

    It is the mean squared second difference over one pixel, divided by the mean squared first
    difference over four pixels plus FLAT. The contrast of the image cancels out, which it does not
    in the variance of a Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000), which would measure the stain as well.
    """
    side = len(density)
    lines = np.empty((side, 2, side), np.float32)  # columns beside rows
    lines[:, 0], lines[:, 1] = density, density.T
    step = lines[1:] - lines[:-1]
    bend = (step[1:] - step[:-1]).ravel()
    slope = (lines[4:] - lines[:-4]).ravel()
    return float(bend @ bend) / len(bend) / (float(slope @ slope) / len(slope) + FLAT)


def cell_contrast(stain: Float32Array) -> FloatArray:
    """How stained the middle of each image is, (N,).

    It is the 90 % quantile of the stain in the middle square, whose side is 3/8 of the image's,
    because the smallest platelets fill a tenth of that square. The 10 % quantile of the stain in
    the whole image, which is negative, is added to correct for noise: in a smear it is close to 0,
    while in an image of pure noise it is as far below 0 as the other quantile is above.
    """
    side = stain.shape[1]
    edge = round(side * 5 / 16)
    middle = stain[:, edge : side - edge, edge : side - edge]
    return np.asarray(_quantile(middle, 0.9) + _quantile(stain, 0.1), np.float64)


def edge_contact(stain: Float32Array) -> FloatArray:
    """How far the stained object reaches beyond the image, (N,); 0 if it touches no edge.

    It is the larger of two figures. The first is the mean stain along the most stained edge, times
    the distance of the centre of all stain from the middle of the image (1 at an edge): a
    neighbouring cell at an edge hardly moves that centre. The second is the mean stain along the
    second least stained edge: only an object that fills the image touches three edges.
    """
    side = stain.shape[1]
    edges = np.concatenate((stain[:, 0], stain[:, -1], stain[:, :, 0], stain[:, :, -1]), axis=1)
    means = np.maximum(edges, 0).reshape(-1, 4, side).sum(axis=2) / side
    weight = np.maximum(stain - STAINED, 0).reshape(-1, side * side)
    contact = []
    for along, moments in zip(means.tolist(), (weight @ _moments(side)).tolist(), strict=True):
        _, second_least, _, most = sorted(along)
        total, across, down = moments
        off_centre = math.hypot(across, down) / (total + side * side * LEAST)
        contact.append(max(most * off_centre, second_least))
    return np.array(contact)


@cache
def _moments(side: int) -> Float32Array:
    """Weights that sum pixels up: 1, their column and their row, from -1 to 1; (S·S,3)."""
    ones, positions = np.ones(side, np.float32), np.linspace(-1, 1, side, dtype=np.float32)
    pairs = ((ones, ones), (ones, positions), (positions, ones))
    return np.stack([np.outer(down, across).ravel() for down, across in pairs], axis=1)


def _quantile(stain: Float32Array, share: float) -> Float32Array:
    """The quantile of the stain of each image, (N,): a `share` of its pixels lies below."""
    pixels = stain.reshape(len(stain), -1)
    rank = int(share * pixels.shape[1])
    return np.partition(pixels, rank, axis=1)[:, rank]
