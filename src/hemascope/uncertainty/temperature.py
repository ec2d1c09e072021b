"""Logits → probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray

LOG_RANGE = (-4.0, 4.0)  # of the logarithm of a temperature
PRIOR_SPREAD = 0.5  # of the logarithm around an expected one, as between laboratories
CLOSE, GOLDEN = 1e-6, (5**0.5 - 1) / 2


def softmax(logits: AnyFloatArray, temperature: float = 1.0) -> FloatArray:
    """Logits (N,C) → probabilities (N,C) that sum to one, in double precision.

    A temperature above one makes them less confident (Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017). Raises ValueError for a temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def log_sum_exp(logits: AnyFloatArray) -> FloatArray:
    """log Σ exp(logits) of each row, (N,C) → (N,), without overflow."""
    wide = np.asarray(logits, dtype=np.float64)
    top = wide.max(axis=1)
    return np.asarray(top + np.log(np.exp(wide - top[:, None]).sum(axis=1)))


def fit_temperature(
    logits: AnyFloatArray, targets: AnyIntArray, expected: float | None = None
) -> float:
    """The temperature with the least cross-entropy on N images: logits (N,C), targets (N,).

    The images must be images that training never saw. An `expected` temperature is preferred as far
    as the images leave it open: the logarithm is taken to differ from its own by 0.5, as a standard
    deviation. Raises ValueError without images. Guo et al., ICML 2017.
    """
    if len(targets) == 0:
        raise ValueError("a temperature cannot be fitted on no images")
    rows, wide = np.arange(len(targets)), np.asarray(logits, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        scaled = wide / np.exp(log_temperature)
        loss = float((log_sum_exp(scaled) - scaled[rows, targets]).sum())
        if expected is not None:
            loss += ((log_temperature - np.log(expected)) / PRIOR_SPREAD) ** 2 / 2
        return loss

    return float(np.exp(_golden_section(loss, *LOG_RANGE)))


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum between two places is least."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    values = function(left), function(right)
    while high - low > CLOSE:
        if values[0] < values[1]:
            high, right = right, left
            left = high - GOLDEN * (high - low)
            values = function(left), values[0]
        else:
            low, left = left, right
            right = low + GOLDEN * (high - low)
            values = values[1], function(right)
    return (low + high) / 2
