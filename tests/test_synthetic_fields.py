"""Drawn fields: their boxes are where the cells are, and their scale is as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemascope.data.marked_fields import MarkedCell, MarkedField
from hemascope.data.outlines import find_ground, outline_red_cells, stain_density, threshold
from hemascope.data.synthetic_fields import draw_field


def test_the_same_seed_draws_the_same_field() -> None:
    one, other = draw_field(5), draw_field(5)
    assert one.image.tobytes() == other.image.tobytes()
    assert one.cells == other.cells
    assert draw_field(6).image.tobytes() != one.image.tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_boxes_hold_what_is_stained(seed: int) -> None:
    field = draw_field(seed, plain=True)
    density = stain_density(np.asarray(field.image))
    inside = np.zeros(density.shape, bool)
    for cell in field.cells:
        x0, y0, x1, y1 = (round(side) for side in cell.box)
        inside[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3] = True
    stained = density > threshold(density)
    assert (stained & inside).sum() > 0.97 * stained.sum()


def test_white_cells_are_as_many_as_asked_and_named() -> None:
    for white in (0, 1, 3):
        field = draw_field(1, white=white)
        assert len(field.select("white")) == len(field.labels) == white


def test_the_scale_is_that_of_the_red_cells() -> None:
    field = draw_field(2, 900, 700, red_diameter=50, crowding=0.1, plain=True)
    whole = [c for c in field.select("red") if c.x0 > 2 and c.y0 > 2 and c.x1 < 898 and c.y1 < 698]
    diameter = np.median([cell.diameter for cell in whole])
    assert 7.2 / diameter == pytest.approx(field.um_per_pixel, rel=0.04)


def test_boxes_end_at_the_border() -> None:
    for cell in draw_field(3, 300, 200).cells:
        assert 0 <= cell.x0 < cell.x1 <= 300
        assert 0 <= cell.y0 < cell.y1 <= 200


def discs(centres: list[tuple[int, int]], radius: int, size: int = 300) -> np.ndarray:
    """Dark discs on a pale ground, (size,size,3)."""
    y, x = np.mgrid[:size, :size]
    pixels = np.full((size, size, 3), 230, np.uint8)
    for centre_x, centre_y in centres:
        pixels[np.hypot(x - centre_x, y - centre_y) < radius] = (170, 110, 120)
    return pixels


def test_discs_with_a_point_become_boxes_and_others_of_their_size_too() -> None:
    pixels = discs([(60, 60), (150, 60), (240, 60), (80, 200), (110, 200)], 20)
    points = tuple(MarkedCell("red", x, y, x, y) for x, y in ((65, 62), (150, 60), (80, 200)))
    found = outline_red_cells(MarkedField(Path("a"), "x", "train", points, ()), pixels)
    boxed = [cell for cell in found.cells if not cell.is_point]
    assert len(boxed) == 3  # two with a point, one like them; the two that touch are not round
    assert [cell.centre for cell in found.cells if cell.is_point] == [(80, 200)]
    assert boxed[0].box == pytest.approx((40, 40, 80, 80), abs=2)
    ground = find_ground(pixels)
    assert ground[140:150, 10:20].all()
    assert not ground[60, 60]


def test_a_field_is_an_image_of_the_size_asked_for() -> None:
    assert draw_field(0, 333, 222).image.size == (333, 222)
    assert isinstance(draw_field(0, 64, 48).image, Image.Image)
