"""Maps become cells as the card says, and a cell is found once; closed forms and naive versions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hemascope.bundle.locator_bundle import LocatorCard
from hemascope.metrics.detection import overlaps
from hemascope.smear.peaks import Found, drop_doubles, find_peaks, join
from hemascope.smear.records import KINDS
from hemascope.smear.views import OVERLAP, TILE, _cuts

CARD = LocatorCard("x", KINDS, dict.fromkeys(KINDS, 0.3), 30.0, 4, 32.0, "", 0, "nothing")
THRESHOLDS = np.array([0.3, 0.3, 0.3])


def empty_maps(rows: int = 10, columns: int = 12) -> np.ndarray:
    maps = np.zeros((7, rows, columns), np.float32)
    maps[:3] = -9
    return maps


def test_a_peak_becomes_a_cell_with_its_box() -> None:
    maps = empty_maps()
    maps[1, 4, 6] = 2.0
    maps[1, 4, 7] = 1.9  # its neighbour is no peak
    maps[3:, 4, 6] = [0.25, -0.5, np.log(2), 0]
    found = find_peaks(maps, CARD, THRESHOLDS)
    x, y = (6.5 + 0.25) * 4, (4.5 - 0.5) * 4
    assert found.kinds.tolist() == [1]
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2.0))])
    assert found.boxes[0] == pytest.approx([x - 32, y - 16, x + 32, y + 16])


def test_kinds_have_thresholds_of_their_own() -> None:
    maps = empty_maps()
    maps[0, 2, 2] = maps[2, 7, 7] = 0.0  # a score of a half
    assert find_peaks(maps, CARD, np.array([0.6, 0.3, 0.4])).kinds.tolist() == [2]
    assert len(find_peaks(maps, CARD, np.array([0.5, 0.5, 0.5])).kinds) == 2


def test_peaks_are_those_of_a_naive_search() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(0, 1, (7, 15, 9)).astype(np.float32)
    found = find_peaks(maps, CARD, THRESHOLDS)
    limit, expected = np.log(0.3 / 0.7), 0
    for kind in range(3):
        for row in range(15):
            for column in range(9):
                around = maps[kind, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                value = maps[kind, row, column]
                expected += bool(value >= limit and value == around.max())
    assert len(found.kinds) == expected


def naive_drop(found: Found) -> set[int]:
    """Which cells stay, by going through them from the best score on."""
    kept: list[int] = []
    for index in np.argsort(-found.scores):
        for other in kept:
            kinds = {int(found.kinds[index]), int(found.kinds[other])}
            shared = overlaps(found.boxes[[index]], found.boxes[[other]])[0, 0]
            limit = 0.4 if kinds == {0} else 0.6
            if shared > limit and (2 not in kinds or kinds == {2}):
                break
        else:
            kept.append(int(index))
    return set(kept)


def test_doubles_are_dropped_as_in_a_naive_version() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        corners, sides = rng.uniform(0, 60, (40, 2)), rng.uniform(15, 30, (40, 2))
        found = Found(
            rng.integers(0, 3, 40), rng.uniform(0, 1, 40), np.hstack([corners, corners + sides])
        )
        kept = drop_doubles(found, CARD)
        expected = sorted(found.scores[list(naive_drop(found))].tolist(), reverse=True)
        assert kept.scores.tolist() == expected


def test_nothing_is_joined_to_nothing() -> None:
    assert len(join([]).kinds) == len(drop_doubles(join([]), CARD).kinds) == 0


@pytest.mark.parametrize("side", [10, TILE, TILE + 1, 1500, 12_345])
def test_tiles_cover_a_side_and_overlap(side: int) -> None:
    parts = _cuts(side)
    assert parts[0][0] == 0
    assert parts[-1][1] == pytest.approx(side)
    assert all(end - start <= TILE + 1e-6 for start, end in parts)
    for (_, end), (start, _) in itertools.pairwise(parts):
        assert end - start == pytest.approx(OVERLAP)
