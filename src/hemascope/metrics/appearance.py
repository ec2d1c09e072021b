"""What an image of a cell looks like, in numbers: stain, ground, sharpness, size. Needs scipy.

Colour is measured as optical density against the image's own ground, so that lamp and camera
do not count as stain.
"""

from __future__ import annotations

import numpy as np

from hemascope.arrays import BoolArray, FloatArray, ImageArray

GREY_LEVELS = "0–255"
STAINED = 0.15  # optical density, all channels together, below which there is only ground
STATISTICS: dict[str, str] = {
    "ground, red": GREY_LEVELS,
    "ground, green": GREY_LEVELS,
    "ground, blue": GREY_LEVELS,
    "eosin-like stain, share of red light": "",
    "eosin-like stain, share of blue light": "",
    "azure-like stain, share of red light": "",
    "azure-like stain, share of blue light": "",
    "angle between the stains": "°",
    "darkness of the central object": "OD",
    "sharpness": "",
    "diameter of the central object": "µm",
}
"""What `statistics` measures, in its order, with units."""


def statistics(image: ImageArray, ground: FloatArray, um_per_pixel: float) -> FloatArray:
    """The STATISTICS (11,) of a model's input (S,S,3) whose ground is (3,).

    A stain's shares are those of its optical density. The central object is the nucleus of a
    white cell, or whatever is dark to red light there; its darkness is its mean density of red
    light. NaN for what the image does not show.
    """
    density = optical_density(image, ground)
    eosin, azure = stain_vectors(density)
    shares = [*(eosin / eosin.sum())[[0, 2]], *(azure / azure.sum())[[0, 2]]]
    between = np.degrees(np.arccos(np.clip(eosin @ azure, -1, 1)))
    inside = central_object(density[:, :, 0])
    dark = density[:, :, 0][inside].mean() if inside.any() else np.nan
    diameter = np.sqrt(4 * inside.sum() / np.pi) * um_per_pixel if inside.any() else np.nan
    return np.array([*ground, *shares, between, dark, sharpness(density), diameter])


def optical_density(image: ImageArray, ground: FloatArray) -> FloatArray:
    """Pixels (h,w,3) as optical density over the ground (3,): -log10 of what light comes through.

    Pixels brighter than the ground have 0.
    """
    through = np.maximum(image, 1) / np.maximum(ground, 1)
    return np.asarray(np.maximum(0, -np.log10(through)))


def stain_vectors(density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The two stains of an image, as unit vectors (3,) of optical density (h,w,3).

    First the one that takes more of the blue light, as in red cells (eosin), then the other, as
    in nuclei (azure). Both are NaN where nothing is stained. They are the first and the last
    percentile of the directions in the plane of the two largest eigenvectors, among stained
    pixels. Macenko et al., "A method for normalizing histology slides for quantitative
    analysis", ISBI 2009.
    """
    pixels = density.reshape(-1, 3)
    stained = pixels[pixels.sum(axis=1) > STAINED]
    if len(stained) < 10:
        return np.full(3, np.nan), np.full(3, np.nan)
    _, vectors = np.linalg.eigh(stained.T @ stained)  # about the origin: no stain, no density
    plane = vectors[:, :0:-1]  # (3,2), the largest first
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    places = stained @ plane
    angles = np.percentile(np.arctan2(places[:, 1], places[:, 0]), (1, 99))
    ends = plane @ np.stack([np.cos(angles), np.sin(angles)])  # (3,2)
    azure, eosin = sorted(ends.T, key=lambda end: float(end[2] / end.sum()))
    return eosin, azure


def sharpness(density: FloatArray) -> float:
    """The variance of the Laplacian of the mean density (h,w,3), over the density's own variance.

    So that contrast does not count; 0 for an even image. It depends on the width of a pixel.
    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    from scipy.ndimage import laplace

    mean = density.mean(axis=2)
    variance = float(mean.var())
    return float(laplace(mean).var()) / variance if variance > 1e-12 else 0.0


def central_object(density: FloatArray) -> BoolArray:
    """The dark object around the middle of one channel's density (h,w), holes filled.

    Pixels above Otsu's threshold, smoothed by a 64th of the image's side; of their connected
    parts those that reach into the middle quarter of the image, such as a nucleus's lobes.
    Empty where there are none. Otsu, "A threshold selection method from gray-level histograms",
    IEEE Trans. Systems, Man and Cybernetics 9 (1979).
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(density, density.shape[0] / 64)
    dark = ndimage.binary_fill_holes(smooth > otsu(smooth))
    labels, _ = ndimage.label(dark)
    rows, columns = density.shape
    middle = labels[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return np.isin(labels, np.unique(middle[middle > 0]))


def otsu(values: FloatArray) -> float:
    """The threshold that best divides values into two groups, each as even as can be.

    All of equal values lie at the threshold, none above.
    """
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return high
    counts, edges = np.histogram(values, 256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * middles)
    first, rest = below[:-1], total - below[:-1]
    between = (sums[-1] * first - sums[:-1] * total) ** 2 / (first * rest)
    return float(edges[1:-1][np.argmax(between)])
