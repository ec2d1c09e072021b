"""Test-time augmentation (TTA): an image in the eight symmetries, and the mean of its maps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hemascope.arrays import AnyFloatArray, ImageArray


def symmetries(images: ImageArray) -> Iterator[ImageArray]:
    """Images (N,S,S,3) in the eight symmetries of the square, first as they are."""
    for mirrored in (images, images[:, :, ::-1]):
        for turns in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, turns, axes=(1, 2)))


def average_maps(maps: list[AnyFloatArray], offset: float = 0.0) -> AnyFloatArray:
    """Mean of the class maps (N,C,h,w) of the eight symmetries, turned back to the first image.

    Each map is moved left and up by `offset` steps before it is turned, so that the mean is not
    shifted against the image.
    """
    moved = [_shift(_shift(class_map, offset, 2), offset, 3) for class_map in maps]
    backed = [
        np.rot90(class_map, -(index % 4), axes=(2, 3)) for index, class_map in enumerate(moved)
    ]
    mirrored = [class_map[:, :, :, ::-1] for class_map in backed[4:]]
    return np.asarray(np.mean([*backed[:4], *mirrored], axis=0))


def _shift(maps: AnyFloatArray, offset: float, axis: int) -> AnyFloatArray:
    """Maps moved towards the start of an axis by `offset` steps, with zeros from the end.

    Between two steps the values are interpolated linearly.
    """
    whole, length = int(offset), maps.shape[axis]
    margins = [(0, 0)] * maps.ndim
    margins[axis] = (0, whole + 1)
    padded = np.pad(maps, margins)
    lower, upper = (padded.take(np.arange(length) + step, axis) for step in (whole, whole + 1))
    return np.asarray(lower + (offset - whole) * (upper - lower))
