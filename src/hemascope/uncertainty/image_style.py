"""What a laboratory's images look like, in five numbers that a person can check and change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemascope.arrays import FloatArray, ImageArray
from hemascope.uncertainty.image_quality import measure_quality

GROUND, STAINED = 90, 95  # percentiles: of a channel for the ground, of its density for the stain
STAINED_BLUE = 90  # the same of blue light, of which even a dark nucleus lets some through
LEAST_SPREAD = (4.0, 4.0, 0.05, 0.05, 0.02)  # in the units of `measure_style`
MEASURES = ("light", "tint", "stain", "sharpness", "stain in blue light")
MARKED = 1.0  # interquartile ranges by which a median must differ to be spoken of
WORDS = (
    ("lighter", "darker"),
    ("more yellow", "more blue"),
    ("more strongly stained", "more weakly stained"),
    ("sharper or finer in scale", "less sharp or coarser in scale"),
    ("more strongly stained", "more weakly stained"),
)


@dataclass(frozen=True)
class ImageStyle:
    """Median and interquartile range of each measure of `measure_style`, over many images.

    Bundles and surveys of earlier versions have the first four of them.
    """

    median: tuple[float, ...]
    spread: tuple[float, ...]


def measure_style(images: ImageArray) -> FloatArray:
    """The MEASURES (N,5) of preprocessed images (N,S,S,3) uint8.

    Light is the mean grey level of the ground, tint its red less its blue, stain the optical
    density of what takes most green light, and sharpness the logarithm of its quality measure.
    Dark nuclei may let no green light through, so that a stronger stain cannot be seen in it; the
    density of what takes most blue light grows on.
    """
    pixels = images.reshape(len(images), -1, 3).astype(np.float64)
    ground = np.percentile(pixels, GROUND, axis=1)  # (N,3)
    stain = _density(pixels, ground, 1, STAINED)
    sharpness = np.log10(np.maximum(measure_quality(images).sharpness, 1e-6))
    blue = _density(pixels, ground, 2, STAINED_BLUE)
    tint = ground[:, 0] - ground[:, 2]
    return np.stack([ground.mean(axis=1), tint, stain, sharpness, blue], axis=1)


def _density(pixels: FloatArray, ground: FloatArray, channel: int, percentile: float) -> FloatArray:
    """A percentile of one channel's optical density over the ground, (N,)."""
    through = np.percentile(pixels[:, :, channel], 100 - percentile, axis=1)
    return np.asarray(np.log10(np.maximum(ground[:, channel], 1) / np.maximum(through, 1)))


def fit_style(images: ImageArray) -> ImageStyle:
    """The style of images (N,S,S,3)."""
    return style_of(measure_style(images))


def style_of(measures: FloatArray) -> ImageStyle:
    """The style of images with these measures (N,5)."""
    low, median, high = np.percentile(measures, (25, 50, 75), axis=0)
    spread = np.maximum(high - low, LEAST_SPREAD[: len(low)])
    return ImageStyle(tuple(median.tolist()), tuple(spread.tolist()))


def describe_style(images: ImageArray, known: ImageStyle) -> str:
    """In which ways images (N,S,S,3) differ from known ones, in words; empty where in none."""
    return style_differences(measure_style(images), known)


def style_differences(measures: FloatArray, known: ImageStyle) -> str:
    """The same, from measures (N,5) of the images, as far as the known ones have them."""
    gaps = np.median(measures, axis=0)[: len(known.median)] - np.array(known.median)
    effects = gaps / np.array(known.spread)
    words = [
        more if effect > 0 else less for (more, less), effect in zip(WORDS, effects, strict=False)
    ]
    chosen = [word for word, effect in zip(words, effects, strict=True) if abs(effect) > MARKED]
    return ", ".join(dict.fromkeys(chosen))
