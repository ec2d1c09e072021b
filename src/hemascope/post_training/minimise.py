"""L-BFGS: the minimum of a smooth convex function, with numpy alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from hemascope.arrays import FloatArray

MEMORY = 10  # pairs of steps and changes of the gradient
STEPS = 500
DECREASE = 1e-4  # of what the gradient promises, that a step must bring at least
SHORTEST = 1e-10  # of a whole step; nothing is gained any more


def minimise(
    function: Callable[[FloatArray], tuple[float, FloatArray]], start: FloatArray, tolerance: float
) -> FloatArray:
    """Where a convex function, which gives its value and its gradient, is least.

    Stops when a step lessens the value by less than `tolerance` of it. Nocedal and Wright,
    "Numerical Optimization", 2nd ed., algorithms 3.1 and 7.5.
    """
    place, pairs = start.copy(), deque[tuple[FloatArray, FloatArray]](maxlen=MEMORY)
    value, gradient = function(place)
    for _ in range(STEPS):
        direction = _direction(gradient, pairs)
        slope = float(gradient @ direction)
        if slope >= 0:
            break
        length = 1.0 if pairs else min(1.0, 1 / max(float(np.abs(gradient).sum()), 1e-12))
        found = function(place + length * direction)
        while not found[0] <= value + DECREASE * length * slope and length > SHORTEST:
            length /= 2
            found = function(place + length * direction)
        if length <= SHORTEST:
            break
        step, change = length * direction, found[1] - gradient
        if step @ change > 1e-12 * (change @ change):
            pairs.append((step, change))
        gained = value - found[0]
        place, (value, gradient) = place + step, found
        if gained <= tolerance * max(abs(value), 1.0):
            break
    return place


def _direction(gradient: FloatArray, pairs: deque[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Where to go: down the gradient, as far as the last steps tell how it bends."""
    direction, factors = -gradient, []
    for step, change in reversed(pairs):
        factor = (step @ direction) / (step @ change)
        factors.append(factor)
        direction = direction - factor * change
    if pairs:
        step, change = pairs[-1]
        direction = direction * ((step @ change) / (change @ change))
    for (step, change), factor in zip(pairs, reversed(factors), strict=True):
        direction = direction + (factor - (change @ direction) / (step @ change)) * step
    return direction
