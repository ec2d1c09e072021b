"""How far an ensemble's members disagree."""

from __future__ import annotations

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray
from hemascope.uncertainty.temperature import softmax


def disagreement(members: AnyFloatArray, temperature: float = 1.0) -> FloatArray:
    """How far M members disagree, in nats: logits (N,M,C) → (N,); 0 where all agree.

    It is the mutual information between the class and the member: the entropy of the mean
    probabilities minus the mean entropy. Depeweg et al., "Decomposition of uncertainty in
    Bayesian deep learning", ICML 2018.
    """
    probabilities = softmax(members, temperature)  # (N,M,C)
    information = _entropy(probabilities.mean(axis=1)) - _entropy(probabilities).mean(axis=1)
    return np.asarray(np.maximum(0.0, information))


def _entropy(probabilities: FloatArray) -> FloatArray:
    logs = np.log(np.maximum(probabilities, 1e-300))
    return np.asarray(-(probabilities * logs).sum(axis=-1))
