"""How far an ensemble's members disagree."""

from __future__ import annotations

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray
from hemascope.uncertainty.temperature import softmax


def disagreement(members: AnyFloatArray, temperature: float = 1.0) -> FloatArray:
    """How far members' answers part, in nats: logits (N,M,C) → (N,); 0 where all agree.

    The mutual information between the answer and who gives it: the entropy of the mean
    probabilities less the mean entropy. Depeweg et al., "Decomposition of uncertainty in
    Bayesian deep learning", ICML 2018.
    """
    probabilities = softmax(members, temperature)  # (N,M,C)
    parts = _entropy(probabilities.mean(axis=1)) - _entropy(probabilities).mean(axis=1)
    return np.asarray(np.maximum(0.0, parts))


def _entropy(probabilities: FloatArray) -> FloatArray:
    logs = np.log(np.maximum(probabilities, 1e-300))
    return np.asarray(-(probabilities * logs).sum(axis=-1))
