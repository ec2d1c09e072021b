"""Logits → probabilities that mean what they say."""

from __future__ import annotations

import numpy as np

from hemascope.arrays import AnyFloatArray, AnyIntArray, FloatArray


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


def fit_temperature(logits: AnyFloatArray, targets: AnyIntArray) -> float:
    """The temperature with the least cross-entropy on N images: logits (N,C), targets (N,).

    The images must be images that training never saw. Needs scipy. Raises ValueError without
    images. Guo et al., ICML 2017.
    """
    from scipy.optimize import minimize_scalar

    if len(targets) == 0:
        raise ValueError("a temperature cannot be fitted on no images")
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        scaled = np.asarray(logits, dtype=np.float64) / np.exp(log_temperature)
        return float((log_sum_exp(scaled) - scaled[rows, targets]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x))
