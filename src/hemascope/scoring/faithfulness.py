"""Whether a map shows what an answer rests on: take that away, or give only that, and look.

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation", BMVC 2018. `sharpened`
makes a map better at it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Probability = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""Images (N,S,S,3) → one class's probability (N,)."""

STEPS = 32

# Of `sharpened`.
SHARES = np.array([2, 4, 8, 16, 32]) / 64  # of the picture, given or taken away
WIDTHS = np.array([2, 3, 6, 12, 24]) / 64  # of the curve about each, by the trapezoid rule
ROUNDS, TRIED, KEPT = 6, 32, 8
NODES = 8  # a side, of the smooth noise that a map is varied with
STRENGTH, FADING = 2.0, 0.85  # of that noise at first, in the map's own spread; left each round


def removed(
    image: NDArray[np.uint8], ground: NDArray[np.uint8], weights: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """The image (S,S,3), ever more of it replaced by `ground`: (STEPS+1,S,S,3).

    The places of the greatest `weights` (S,S) go first; the last picture is all ground.
    """
    ranks = np.empty(weights.size, dtype=np.int64)
    ranks[np.argsort(-weights, axis=None, kind="stable")] = np.arange(weights.size)
    limits = np.linspace(0, weights.size, STEPS + 1)
    gone = ranks.reshape(1, *weights.shape) < limits[:, None, None]  # (STEPS+1,S,S)
    return np.where(gone[..., None], ground, image).astype(np.uint8)


def deletion(
    image: NDArray[np.uint8],
    ground: NDArray[np.uint8],
    weights: NDArray[np.floating],
    probability: Probability,
) -> float:
    """Area under the probability as the weightiest places go, 0..1: low for a faithful map."""
    curve = probability(removed(image, ground, weights))
    return float(np.trapezoid(curve, dx=1 / STEPS))


def insertion(
    image: NDArray[np.uint8],
    ground: NDArray[np.uint8],
    weights: NDArray[np.floating],
    probability: Probability,
) -> float:
    """Area under the probability as the weightiest places come, 0..1: high for a faithful map."""
    return deletion(ground, image, weights, probability)


def sharpened(
    image: NDArray[np.uint8],
    ground: NDArray[np.uint8],
    start: NDArray[np.floating],
    probability: Probability,
    rounds: int = ROUNDS,
) -> NDArray[np.float64]:
    """A map (S,S) of the same class that is more faithful than `start`, the class activation map.

    In each round variations of the map are tried out: smooth noise is added, the more the stronger
    the map is there, and the mean of the best becomes the map: of those with the greatest insertion
    area less the deletion area. That takes ROUNDS × TRIED × 10 pictures. It is the cross-entropy
    method (Rubinstein 1999) on the masks of Fong, Patrick and Vedaldi, "Understanding deep networks
    via extremal perturbations and smooth masks", ICCV 2019. The same picture gives the same map, in
    units of the start's spread about its mean.
    """
    random = np.random.default_rng(0)
    best = (start - start.mean()) / max(float(start.std()), 1e-12)
    room = np.sqrt((best - best.min()) / max(float(np.ptp(best)), 1e-12))
    nodes = np.linspace(0, len(start) - 1, NODES)
    spread = np.stack(
        [np.interp(np.arange(len(start)), nodes, node) for node in np.eye(NODES)], axis=1
    )  # (S,NODES), linear between the nodes
    for turn in range(rounds):
        noise = random.standard_normal((TRIED, NODES, NODES))
        noise[0] = 0  # the map itself is tried as well
        tried = best + STRENGTH * FADING**turn * room * (spread @ noise @ spread.T)  # (TRIED,S,S)
        worth = [_worth(image, ground, weights, probability) for weights in tried]
        best = tried[np.argsort(worth)[-KEPT:]].mean(axis=0)
    return np.asarray(best)


def _worth(
    image: NDArray[np.uint8],
    ground: NDArray[np.uint8],
    weights: NDArray[np.floating],
    probability: Probability,
) -> float:
    """The insertion area less the deletion area, measured at SHARES only.

    Of the square roots of the odds: probabilities close to 0 or 1 would hardly tell maps apart.
    """
    limits = np.quantile(weights, 1 - SHARES)
    strong = (weights >= limits[:, None, None])[..., None]  # (L,S,S,1)
    pictures = np.concatenate([np.where(strong, image, ground), np.where(strong, ground, image)])
    chance = np.clip(probability(pictures), 0, 1)
    flat = np.sqrt(chance) / (np.sqrt(chance) + np.sqrt(1 - chance))
    given, left = np.split(flat, 2)
    return float((given - left) @ WIDTHS)
