"""The scale from red cells."""

from __future__ import annotations

import numpy as np
import pytest

from hemascope.errors import SampleError
from hemascope.smear.naming import join_scales
from hemascope.smear.records import LocatedCell, Scale
from hemascope.smear.scale import measure_scale, measured_diameters


def red(
    x: float, y: float, diameter: float, score: float = 0.9, border: bool = False
) -> LocatedCell:
    half = diameter / 2
    return LocatedCell("red", (x - half, y - half, x + half, y + half), score, border)


def row(diameters: list[float]) -> list[LocatedCell]:
    return [red(100.0 * (index + 1), 100, d) for index, d in enumerate(diameters)]


def scales_of(*fields: list[LocatedCell]) -> list[Scale | None]:
    return [measure_scale(cells)[0] for cells in fields]


def test_scale_is_that_of_the_median_cell() -> None:
    scale, note = measure_scale(row([70, 71, 72, 73, 74, 72, 72, 90, 72]))
    assert scale is not None
    assert scale.um_per_pixel == pytest.approx(7.2 / 72)
    assert (scale.n, note) == (9, "")
    assert scale.low <= scale.um_per_pixel <= scale.high


def test_interval_holds_the_scale_of_all_cells() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        scale, _ = measure_scale(row((72 * np.exp(rng.normal(0, 0.08, 25))).tolist()))
        assert scale is not None
        held += scale.low <= 0.1 <= scale.high
    assert held >= 180  # 95 % of 200 are 190, with a standard deviation of 3


def test_cells_that_overlap_are_left_out_where_enough_stand_alone() -> None:
    alone = row([70.0] * 8)
    pair = [red(2000, 500, 100), red(2030, 500, 100)]
    assert sorted(measured_diameters([*alone, *pair])) == pytest.approx([70.0] * 8)
    assert sorted(measured_diameters([*alone[:7], *pair])) == pytest.approx([70.0] * 7 + [100, 100])


def test_cut_flat_and_doubtful_cells_are_left_out() -> None:
    flat = LocatedCell("red", (2000, 0, 2100, 40), 0.9, False)
    left_out = [red(1500, 50, 90, border=True), red(1700, 50, 90, score=0.1), flat]
    assert measured_diameters([*row([70.0] * 8), *left_out]) == pytest.approx([70.0] * 8)


def test_few_cells_and_unlike_ones_tell_nothing() -> None:
    scale, note = measure_scale(row([70, 71]))
    assert scale is None
    assert note == "the scale cannot be told: 2 whole red cells were found, 3 are needed"
    scale, note = measure_scale(row([30, 60, 120]))
    assert scale is None
    assert "differ too much" in note


def test_a_sample_s_scale_is_that_of_its_fields() -> None:
    scale = join_scales(scales_of(row([70.0] * 5), row([72.0] * 9), row([72.0] * 3)))
    assert scale == Scale(7.2 / 72, 7.2 / 72, 7.2 / 72, 17)


def test_fields_of_two_magnifications_are_refused_with_both_scales() -> None:
    with pytest.raises(SampleError, match=r"a pixel is 0\.100 to 0\.200 µm wide"):
        join_scales(scales_of(row([72.0] * 9), row([36.0] * 9)))


def test_fields_whose_red_cells_tell_nothing_do_not_count() -> None:
    assert join_scales(scales_of(row([72.0] * 9), [])) == Scale(7.2 / 72, 7.2 / 72, 7.2 / 72, 9)
