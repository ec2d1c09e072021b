"""A search for the map that is best by its deletion and insertion curves.

Since it optimises these curves, they cannot measure how faithful the map that it finds is.
"""

from __future__ import annotations

import numpy as np

from hemascope.arrays import AnyFloatArray, FloatArray, ImageArray
from hemascope.metrics.faithfulness import Probability

SHARES = np.array([2, 4, 8, 16, 32]) / 64  # of the image, shown or removed
WIDTHS = np.array([2, 3, 6, 12, 24]) / 64  # of the curve about each, by the trapezoid rule
ROUNDS, CANDIDATES, KEPT = 6, 32, 8
NODES = 8  # a side, of the smooth noise that a map is varied with
STRENGTH, FADING = 2.0, 0.85  # of that noise at first, in the map's own spread; left each round


def search_mask(
    image: ImageArray,
    ground: ImageArray,
    start: AnyFloatArray,
    probability: Probability,
    rounds: int = ROUNDS,
) -> FloatArray:
    """A map (S,S) of the same class with better curves than `start`, the class activation map.

    Each round tries out variations of the map: smooth noise is added to it, more where the map is
    stronger. The mean of the variations with the greatest insertion area minus deletion area
    becomes the new map. That takes ROUNDS × CANDIDATES × 10 images. It is the cross-entropy
    method (Rubinstein 1999) on the masks of Fong, Patrick and Vedaldi, "Understanding deep networks
    via extremal perturbations and smooth masks", ICCV 2019. The same image gives the same map, in
    units of the standard deviation of `start`, about its mean.
    """
    random = np.random.default_rng(0)
    best = (start - start.mean()) / max(float(start.std()), 1e-12)
    room = np.sqrt((best - best.min()) / max(float(np.ptp(best)), 1e-12))
    nodes = np.linspace(0, len(start) - 1, NODES)
    spread = np.stack(
        [np.interp(np.arange(len(start)), nodes, node) for node in np.eye(NODES)], axis=1
    )  # (S,NODES), linear between the nodes
    for turn in range(rounds):
        noise = random.standard_normal((CANDIDATES, NODES, NODES))
        noise[0] = 0  # the map itself is tried as well
        candidates = best + STRENGTH * FADING**turn * room * (
            spread @ noise @ spread.T
        )  # (CANDIDATES,S,S)
        worth = [_score(image, ground, weights, probability) for weights in candidates]
        best = candidates[np.argsort(worth)[-KEPT:]].mean(axis=0)
    return np.asarray(best)


def _score(
    image: ImageArray,
    ground: ImageArray,
    weights: AnyFloatArray,
    probability: Probability,
) -> float:
    """The insertion area minus the deletion area, measured at SHARES only.

    The curves are those of √p / (√p + √(1-p)) instead of the probability p, because probabilities
    close to 0 or 1 would hardly tell maps apart.
    """
    limits = np.quantile(weights, 1 - SHARES)
    strong = (weights >= limits[:, None, None])[..., None]  # (L,S,S,1)
    images = np.concatenate([np.where(strong, image, ground), np.where(strong, ground, image)])
    chance = np.clip(probability(images), 0, 1)
    flat = np.sqrt(chance) / (np.sqrt(chance) + np.sqrt(1 - chance))
    given, left = np.split(flat, 2)
    return float((given - left) @ WIDTHS)
