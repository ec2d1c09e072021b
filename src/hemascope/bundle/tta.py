"""Several answers to one image: of an ensemble's members, or of one network to turned pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hemascope.arrays import AnyFloatArray, ImageArray


def symmetries(images: ImageArray) -> Iterator[ImageArray]:
    """Pictures (N,S,S,3) in the eight symmetries of the square, first as they are."""
    for mirrored in (images, images[:, :, ::-1]):
        for turns in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, turns, axes=(1, 2)))


def turned_back(maps: list[AnyFloatArray], offset: float = 0.0) -> AnyFloatArray:
    """Mean of maps (N,C,h,w) of the eight symmetries' pictures, each in the first one's frame.

    What a place shows lies `offset` places further left and up; of the mean it lies at the place.
    """
    moved = [_moved(_moved(found, offset, 2), offset, 3) for found in maps]
    backed = [np.rot90(found, -(place % 4), axes=(2, 3)) for place, found in enumerate(moved)]
    mirrored = [found[:, :, :, ::-1] for found in backed[4:]]
    return np.asarray(np.mean([*backed[:4], *mirrored], axis=0))


def _moved(maps: AnyFloatArray, offset: float, axis: int) -> AnyFloatArray:
    """Towards the start of an axis by so many places; linear between two, zero past the last."""
    whole, length = int(offset), maps.shape[axis]
    margins = [(0, 0)] * maps.ndim
    margins[axis] = (0, whole + 1)
    padded = np.pad(maps, margins)
    lower, upper = (padded.take(np.arange(length) + step, axis) for step in (whole, whole + 1))
    return np.asarray(lower + (offset - whole) * (upper - lower))
