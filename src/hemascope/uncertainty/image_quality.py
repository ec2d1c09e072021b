"""Is this a picture of one whole, sharp cell? Three measures, and the limits that they must keep.

All work on preprocessed images (N,S,S,3) uint8, in optical density over the image's own ground, so
that brightness and the tint of the light do not count. Nuclei, granules and platelets are told
from red cells by their stain: azure and eosin absorb green far more than blue, haemoglobin both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from hemascope.arrays import Float32Array, FloatArray, ImageArray

BLURRED, CUT_OFF, NO_CELL = "blurred", "cut off", "no cell in the picture"

SAMPLE = 64  # about this many pixels a side are looked at, whatever the image's size
GROUND = 0.95  # the ground is brighter than this share of the pixels
STAINED = 0.1  # stain above which a pixel is hardly a red cell's
LEAST = 1e-3  # mean stain below which there is nothing to have a centre
CLEARANCE = 2 / 3  # how far below the palest cells the limit lies
SMALLEST = 16  # pixels a side, as InputSpec has it
DARKNESS = -np.log10(np.maximum(np.arange(256), 1)).astype(np.float32)


class QualityMeasures(NamedTuple):
    """Three figures an image, (N,) each; see the functions of the same names."""

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
    """Limits that each leave out at most a share `tail` of these images, together three times it.

    The palest of good pictures are small platelets, nearly all of that tail: the limit of contrast
    lies at two thirds of theirs, still well above red cells. The images must be good ones, as they
    come, that training never saw; only their measures are needed, batch by batch. Raises
    ValueError without images, or for a tail outside 0 to 0.5.
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


def quality_reasons(images: ImageArray, limits: QualityLimits) -> list[tuple[str, ...]]:
    """Why each of the images (N,S,S,3) should be looked at again: an empty tuple where all is well.

    A cell that lies at the edge is cut off, not missing; and a picture without a cell has nothing
    in it that would have to be sharp. Raises ValueError as `sampled` does.
    """
    reasons = []
    for sharp, contrast, contact in zip(*measure_quality(images), strict=True):
        cut_off = contact > limits.edge_contact
        no_cell = contrast < limits.cell_contrast and not cut_off
        blurred = sharp < limits.sharpness and not no_cell
        found = ((BLURRED, blurred), (CUT_OFF, cut_off), (NO_CELL, no_cell))
        reasons.append(tuple(name for name, is_so in found if is_so))
    return reasons


def measure_quality(images: ImageArray) -> QualityMeasures:
    """All measures of images (N,S,S,3) uint8. Raises ValueError as `sampled` does."""
    sample = sampled(images)
    density: Float32Array = DARKNESS.take(sample, mode="clip")  # half the time of indexing
    stain = stained(density, ground_density(sample))
    sharp = np.array([sharpness(green) for green in density[0]], np.float64)
    return QualityMeasures(sharp, cell_contrast(stain), edge_contact(stain))


def sampled(images: ImageArray) -> ImageArray:
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
    """What the ground of each image has in green and blue, (2,N), by every fourth of its pixels."""
    few = sample[:, :, ::2, ::2].reshape(*sample.shape[:2], -1)
    few.sort(axis=2, kind="stable")  # a radix sort, on images faster than a partition
    ground: Float32Array = DARKNESS[few[:, :, int(GROUND * few.shape[2])]]
    return ground


def stained(density: Float32Array, ground: Float32Array) -> Float32Array:
    """Stain of means of 2×2 pixels, (N,m,m): density in green less that in blue, over the ground's.

    Float32Array are (2,N,n,n), those of the ground (2,N).
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
    """How bent one density (n,n) is from pixel to pixel, over how steep it is: 0 if uniform.

    The second difference over one pixel of the sample, squared and averaged, over the same of the
    first difference over four: contrast cancels out. A Laplacian alone (Pech-Pacheco et al.,
    "Diatom autofocusing in brightfield microscopy", ICPR 2000) would measure the stain as well.
    """
    side = len(density)
    lines = np.empty((side, 2, side), np.float32)  # columns beside rows, from top to bottom
    lines[:, 0], lines[:, 1] = density, density.T
    step = lines[1:] - lines[:-1]
    bend = (step[1:] - step[:-1]).ravel()
    slope = (lines[4:] - lines[:-4]).ravel()
    return float(bend @ bend) / len(bend) / (float(slope @ slope) / len(slope) + 5e-5)


def cell_contrast(stain: Float32Array) -> FloatArray:
    """How stained the middle is, (N,): what the most stained tenth of it exceeds.

    The middle is 3/8 of a side wide; the smallest platelets fill a tenth of it. What the least
    stained tenth of the picture falls short of the ground is taken off (it is negative): that is
    hardly anything in a smear, but in mere noise it is as much as there is above.
    """
    side = stain.shape[1]
    edge = round(side * 5 / 16)
    middle = stain[:, edge : side - edge, edge : side - edge]
    return np.asarray(_exceeded(middle, 0.9) + _exceeded(stain, 0.1), np.float64)


def edge_contact(stain: Float32Array) -> FloatArray:
    """How far the stained object runs out of the picture, (N,): 0 for one that touches no edge.

    The mean stain along the edge that has most of it, times the distance of the centre of all stain
    from the middle, 1 at an edge: a neighbour at the edge of a whole cell's picture hardly moves
    that centre. Or, if it is more, the mean stain along the edge that has second least: only what
    fills the picture touches three.
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
    """By which pixels are added up: all alike, and by their place, from -1 to 1; (S·S,3)."""
    ones, places = np.ones(side, np.float32), np.linspace(-1, 1, side, dtype=np.float32)
    pairs = ((ones, ones), (ones, places), (places, ones))
    return np.stack([np.outer(down, across).ravel() for down, across in pairs], axis=1)


def _exceeded(stain: Float32Array, share: float) -> Float32Array:
    """The stain that this share of the pixels of each image lies below, (N,)."""
    pixels = stain.reshape(len(stain), -1)
    rank = int(share * pixels.shape[1])
    return np.partition(pixels, rank, axis=1)[:, rank]
