"""Have a laboratory's images changed? A permutation test of five measures of style.

Cells colour an image too, so that images are compared within groups, such as the named classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hemascope.arrays import AnyIntArray, BoolArray, FloatArray

FALSE_ALARMS = 0.01  # share of batches without a change that are said to have one
PERMUTATIONS = 4999
NORMAL = 1.4826  # a normal distribution's standard deviation over its median absolute deviation
FARTHEST = 4.0  # standard deviations from its group's median beyond which an image counts no more
FALLING, RISING = (
    ("darker", "more blue", "more weakly stained", "less sharp", "more weakly stained"),
    ("lighter", "more yellow", "more strongly stained", "sharper", "more strongly stained"),
)


@dataclass(frozen=True)
class Drift:
    """Whether images differ from earlier ones of the same laboratory.

    `p_value` is the share of random divisions of all images that differ as much in any measure.
    `shifts` are the differences of the measures, in standard deviations of the images of a group
    as their median absolute deviation tells it, so that a few odd images do not count for more,
    and `changes` says in words which of them are beyond chance.
    """

    alarm: bool
    p_value: float
    shifts: tuple[float, ...]
    changes: tuple[str, ...]
    false_alarms: float = FALSE_ALARMS


def detect_drift(
    before: FloatArray, groups: AnyIntArray, after: FloatArray, after_groups: AnyIntArray
) -> Drift:
    """Compares measures (N,5) of earlier images with those (M,5) of new ones, group by group.

    Where nothing has changed, at most 1 % of such comparisons give an alarm: which images of a
    group are called new is then chance, and so is the largest of the differences. Groups that
    only one side has are left out, and so is a fifth measure that only one side has. Raises
    ValueError where no group has images of both.
    """
    both = np.intersect1d(groups, after_groups)
    if not both.size:
        raise ValueError("no class is named in the earlier and in the new images")
    old, new = np.isin(groups, both), np.isin(after_groups, both)
    common = min(before.shape[1], after.shape[1])
    values = np.concatenate([before[old, :common], after[new, :common]])
    strata = np.concatenate([groups[old], after_groups[new]])
    is_new = np.repeat([False, True], [int(old.sum()), int(new.sum())])
    residuals = values - _group_medians(values, strata)
    spread = NORMAL * np.median(np.abs(residuals), axis=0)
    scaled = np.clip(residuals / np.maximum(spread, 1e-9), -FARTHEST, FARTHEST)
    observed = (_contrasts(strata, is_new[None]) @ scaled)[0]
    most = np.abs(_contrasts(strata, _shuffle(strata, is_new)) @ scaled).max(axis=1)
    reached = np.array([(most >= abs(value) - 1e-12).sum() for value in observed])
    p_values = (1 + reached) / (1 + PERMUTATIONS)
    words = [
        rising if value > 0 else falling
        for falling, rising, value in zip(FALLING[:common], RISING[:common], observed, strict=True)
    ]
    chosen = [word for word, p in zip(words, p_values, strict=True) if p <= FALSE_ALARMS]
    p_value = float(p_values.min())
    return Drift(
        p_value <= FALSE_ALARMS, p_value, tuple(observed.tolist()), tuple(dict.fromkeys(chosen))
    )


def _group_medians(values: FloatArray, strata: AnyIntArray) -> FloatArray:
    medians = np.empty_like(values)
    for group in np.unique(strata):
        medians[strata == group] = np.median(values[strata == group], axis=0)
    return medians


def _contrasts(strata: AnyIntArray, is_new: BoolArray) -> FloatArray:
    """For each of P divisions (P,N), the weights (P,N) that give new minus earlier means.

    The difference of each group weighs as much as it tells.
    """
    contrasts, total = np.zeros(is_new.shape), 0.0
    for group in np.unique(strata):
        here = np.flatnonzero(strata == group)
        new = is_new[:, here]
        count, rest = int(new[0].sum()), int((~new[0]).sum())  # in each division alike
        weight = count * rest / (count + rest)
        contrasts[:, here] = np.where(new, weight / count, -weight / rest)
        total += weight
    return contrasts / total


def _shuffle(strata: AnyIntArray, is_new: BoolArray) -> BoolArray:
    """Who is new, drawn anew within each group, (P,N)."""
    random = np.random.default_rng(0)
    drawn = np.repeat(is_new[None], PERMUTATIONS, axis=0)
    for group in np.unique(strata):
        here = np.flatnonzero(strata == group)
        drawn[:, here] = random.permuted(drawn[:, here], axis=1)
    return drawn
