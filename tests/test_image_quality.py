"""Blurred, cut off, or no cell at all: on drawn cells, and against closed forms."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from drawn import draw_cell
from hemascope import BLOOD_CELLS, InputSpec
from hemascope.uncertainty.image_quality import (
    BLURRED,
    CUT_OFF,
    NO_CELL,
    QualityLimits,
    fit_quality,
    judge_quality,
    measure_quality,
)

SPEC = InputSpec(128, 0.6)
NUCLEATED = [name for name in BLOOD_CELLS.names if name != "platelet"]


@pytest.fixture(scope="module")
def cells(drawn_cells: Path) -> list[Image.Image]:
    return [
        Image.open(drawn_cells / name / f"{name}_{seed}.png")
        for name in BLOOD_CELLS.names
        for seed in range(12)
    ]


@pytest.fixture(scope="module")
def limits(cells: list[Image.Image]) -> QualityLimits:
    images = np.stack([SPEC.apply(cell) for cell in cells])
    return fit_quality([measure_quality(images[:40]), measure_quality(images[40:])])


def test_good_pictures_pass(cells: list[Image.Image], limits: QualityLimits) -> None:
    images = np.stack([SPEC.apply(cell) for cell in cells])
    assert sum(bool(found) for found in judge_quality(measure_quality(images), limits)) <= 3


def test_a_blurred_picture_is_noticed(cells: list[Image.Image], limits: QualityLimits) -> None:
    blurred = [cell.filter(ImageFilter.GaussianBlur(7)) for cell in cells]
    found = judge_quality(measure_quality(np.stack([SPEC.apply(cell) for cell in blurred])), limits)
    assert sum(BLURRED in reasons for reasons in found) >= 0.9 * len(cells)


def test_a_cell_at_the_edge_is_noticed(limits: QualityLimits) -> None:
    shifted = []
    for name in NUCLEATED:
        for seed in range(4):
            whole = np.asarray(draw_cell(name, seed, size=720).resize((360, 360)))
            moved = np.roll(whole, 118, axis=1)
            shifted.append(SPEC.apply(Image.fromarray(moved)))
    found = judge_quality(measure_quality(np.stack(shifted)), limits)
    assert sum(bool(reasons) for reasons in found) >= 0.7 * len(shifted)
    assert any(CUT_OFF in reasons for reasons in found)


def test_an_empty_picture_is_noticed(limits: QualityLimits) -> None:
    blank = np.full((2, 128, 128, 3), 220, dtype=np.uint8)
    blank[1] -= np.random.default_rng(0).integers(0, 20, (128, 128, 1)).astype(np.uint8)
    assert all(NO_CELL in reasons for reasons in judge_quality(measure_quality(blank), limits))


def test_a_uniform_picture_measures_nothing() -> None:
    sharp, contrast, contact = measure_quality(np.full((1, 64, 64, 3), 130, dtype=np.uint8))
    assert (sharp[0], contrast[0], contact[0]) == (0, 0, 0)


@cache
def drawn_monocyte(seed: int) -> NDArray[np.uint8]:
    return SPEC.apply(draw_cell("monocyte", seed))[None]


@given(st.floats(0.6, 1.0), st.integers(0, 20))
def test_brightness_does_not_count(factor: float, seed: int) -> None:
    image = drawn_monocyte(seed % 4)
    darker = np.rint(image * factor).astype(np.uint8)
    for ours, theirs in zip(measure_quality(image), measure_quality(darker), strict=True):
        assert ours == pytest.approx(theirs, rel=0.15, abs=0.02)


def test_limits_leave_out_no_more_than_their_tail() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (400, 32, 32, 3), dtype=np.uint8)
    measures = measure_quality(images)
    limits = fit_quality([measures], tail=0.05)
    assert (measures.sharpness < limits.sharpness).sum() <= 20
    assert (measures.edge_contact > limits.edge_contact).sum() <= 20


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N,S,S,3\) of uint8"):
        measure_quality(np.zeros((2, 32, 32, 3), dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 16"):
        measure_quality(np.zeros((2, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="no images"):
        fit_quality([])
