"""Several answers to one image: of an ensemble's members, or of one network to turned pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hemascope.scoring.calibration import softmax

Floats = NDArray[np.floating]


def symmetries(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Pictures (N,S,S,3) in the eight symmetries of the square, first as they are."""
    for mirrored in (images, images[:, :, ::-1]):
        for turns in range(4):
            yield np.ascontiguousarray(np.rot90(mirrored, turns, axes=(1, 2)))


def turned_back(maps: list[Floats], offset: float = 0.0) -> Floats:
    """Mean of maps (N,C,h,w) of the eight symmetries' pictures, each in the first one's frame.

    What a place shows lies `offset` places further left and up; of the mean it lies at the place.
    """
    moved = [_moved(_moved(found, offset, 2), offset, 3) for found in maps]
    backed = [np.rot90(found, -(place % 4), axes=(2, 3)) for place, found in enumerate(moved)]
    mirrored = [found[:, :, :, ::-1] for found in backed[4:]]
    return np.asarray(np.mean([*backed[:4], *mirrored], axis=0))


def _moved(maps: Floats, offset: float, axis: int) -> Floats:
    """Towards the start of an axis by so many places; linear between two, zero past the last."""
    whole, length = int(offset), maps.shape[axis]
    margins = [(0, 0)] * maps.ndim
    margins[axis] = (0, whole + 1)
    padded = np.pad(maps, margins)
    lower, upper = (padded.take(np.arange(length) + step, axis) for step in (whole, whole + 1))
    return np.asarray(lower + (offset - whole) * (upper - lower))


def disagreement(members: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """How far members' answers part, in nats: logits (N,M,C) → (N,); 0 where all agree.

    The mutual information between the answer and who gives it: the entropy of the mean
    probabilities less the mean entropy. Depeweg et al., "Decomposition of uncertainty in
    Bayesian deep learning", ICML 2018.
    """
    probabilities = softmax(members, temperature)  # (N,M,C)
    parts = _entropy(probabilities.mean(axis=1)) - _entropy(probabilities).mean(axis=1)
    return np.asarray(np.maximum(0.0, parts))


def _entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(np.maximum(probabilities, 1e-300))
    return np.asarray(-(probabilities * logs).sum(axis=-1))
