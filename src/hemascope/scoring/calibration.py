"""Logits → probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Logits (N,C) → probabilities (N,C) that sum to one, in double precision.

    A temperature above one makes them less sure (Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017). Raises ValueError for one that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))
