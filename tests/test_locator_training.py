"""The locator's crops, targets and loss; its training goes on to the same weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hemascope.data.marked_fields import ALL_KINDS, MarkedCell
from hemascope.errors import TrainingError
from hemascope.models.locator import STRIDE, TYPICAL, LocatorNetwork
from hemascope.training.locator import decode_boxes, fit_locator, locator_loss
from hemascope.training.locator_fields import (
    DRAWN,
    Crop,
    LocatorData,
    TrainingField,
    cut,
    draw_crops,
    draw_fields,
    fade_cytoplasm,
    load_fields,
)
from hemascope.training.locator_recipe import LocatorRecipe
from hemascope.training.locator_targets import make_targets

RED, GROUND = (200, 40, 60), (230, 230, 230)


def field_with(cells: list[tuple[str, int, int, int, int]]) -> TrainingField:
    """A field whose cells are plain rectangles, red cells 60 pixels wide."""
    pixels = np.full((300, 400, 3), GROUND, np.uint8)
    for _, x0, y0, x1, y1 in cells:
        pixels[y0:y1, x0:x1] = RED
    marked = tuple(MarkedCell(*cell) for cell in cells)
    return TrainingField(pixels, marked, ALL_KINDS, None, GROUND, 60.0)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_of_a_crop_are_where_its_pixels_are(seed: int) -> None:
    field = field_with([("red", 100, 100, 160, 170), ("red", 300, 40, 340, 100)])
    crop = cut(field, LocatorRecipe(too_near=0.0), np.random.default_rng(seed))
    stained = crop.image[..., 1] < 140
    expected = np.zeros((192, 192), bool)
    for cell in crop.cells:
        x0, y0, x1, y1 = (round(min(max(side, 0), 192)) for side in cell.box)
        expected[y0:y1, x0:x1] = True
    assert (stained ^ expected).sum() <= 0.12 * max(expected.sum(), 100)


@pytest.mark.slow
def test_crops_come_at_the_network_s_scale_and_beyond() -> None:
    field = field_with([("red", 100, 100, 160, 160)])
    rng, recipe = np.random.default_rng(0), LocatorRecipe(scales=2.0, any_scale=1.0, too_near=0.0)
    diameters = [cut(field, recipe, rng).cells[0].diameter for _ in range(300)]
    assert 30 / 2 * 0.9 < min(diameters) < 18
    assert 50 < max(diameters) < 60 * 1.1
    near = [cut(field, replace(recipe, any_scale=0.0), rng).cells[0].diameter for _ in range(300)]
    assert 30 * 0.75 < min(near) < max(near) < 30 * 1.35


def test_cytoplasm_fades_and_nothing_else_does() -> None:
    image = np.full((100, 100, 3), GROUND, np.uint8)
    image[20:80, 20:80] = (170, 190, 210)  # cytoplasm
    image[40:60, 40:60] = (60, 40, 110)  # nucleus
    image[0:15, 0:15] = RED
    cells = (MarkedCell("white", 20, 20, 80, 80), MarkedCell("red", 0, 0, 15, 15))
    faded = fade_cytoplasm(image, cells, GROUND, np.random.default_rng(0))
    rows, columns = np.indices((100, 100))
    inside = ((rows - 50) / 30) ** 2 + ((columns - 50) / 30) ** 2 < 1
    nucleus = (abs(rows - 49.5) < 10) & (abs(columns - 49.5) < 10)
    assert (faded[~inside] == image[~inside]).all()
    assert (abs(faded[nucleus].astype(int) - image[nucleus]) <= 1).all()
    pale = faded[inside & ~nucleus].astype(int)
    assert (pale >= image[inside & ~nucleus]).all()
    assert (pale <= GROUND).all()
    assert pale.mean() > image[inside & ~nucleus].mean() + 5


def test_in_crops_from_too_near_nothing_is_to_be_found() -> None:
    field = field_with([("red", 100, 100, 160, 160)])
    crop = cut(field, LocatorRecipe(too_near=1.0), np.random.default_rng(1))
    assert crop.cells == ()
    assert make_targets(crop).counts.all()


def crop_of(*cells: MarkedCell, complete: tuple[str, ...] = ALL_KINDS) -> Crop:
    empty = np.zeros((64, 64), bool)
    return Crop(np.zeros((64, 64, 3), np.uint8), cells, complete, empty)


def test_a_cell_is_a_peak_at_its_centre_with_its_box_around() -> None:
    targets = make_targets(crop_of(MarkedCell("red", 10, 20, 40, 44)))
    row, column = 32 // STRIDE, 25 // STRIDE
    assert targets.heat[1, row, column] == 1
    assert (targets.heat == 1).sum() == 1
    assert targets.boxes[:, row, column].tolist() == [10, 20, 40, 44]
    assert targets.weights[row, column] == 1
    assert targets.counts.all()


def test_where_a_kind_is_not_all_marked_only_cells_and_ground_count() -> None:
    crop = crop_of(MarkedCell("white", 8, 8, 40, 40), complete=("white", "platelet"))
    crop.empty[48:, 48:] = True
    counts = make_targets(crop).counts[1]
    assert counts[6, 6] == 1  # inside the white cell there is no red one
    assert counts[13, 13] == 1  # on the ground
    assert counts[14, 2] == 0  # in between nobody knows


def test_what_is_hardly_seen_is_neither_there_nor_not() -> None:
    targets = make_targets(crop_of(MarkedCell("red", -28, 20, 4, 52)))
    assert targets.heat.sum() == 0
    assert targets.counts[1, 8, 0] == 0
    assert targets.counts[0].all()


def test_a_point_says_where_but_not_how_large() -> None:
    targets = make_targets(crop_of(MarkedCell("white", 30, 30, 30, 30), complete=()))
    assert targets.heat[0, 7, 7] == 1
    assert targets.counts[0].sum() == 1
    assert targets.weights.sum() == 0


def test_a_tiny_cell_outside_touches_nothing() -> None:
    targets = make_targets(crop_of(MarkedCell("red", -500, -500, -470, -470)))
    assert targets.counts.all()
    assert not targets.heat.any()


def stacked(crop: Crop) -> list[torch.Tensor]:
    targets = make_targets(crop)
    parts = (targets.heat, targets.counts, targets.boxes, targets.weights)
    return [torch.from_numpy(part)[None] for part in parts]


def perfect_maps(targets: list[torch.Tensor]) -> torch.Tensor:
    """Maps that say what the targets do."""
    heat, _, boxes, weights = (part[0] for part in targets)
    side = heat.shape[-1]
    maps = torch.zeros(7, side, side)
    maps[:3] = torch.where(heat == 1, 20.0, -20.0)
    place = (torch.arange(side) + 0.5) * STRIDE
    known = weights > 0
    maps[3] = torch.where(known, ((boxes[0] + boxes[2]) / 2 - place) / STRIDE, 0)
    maps[4] = torch.where(known, ((boxes[1] + boxes[3]) / 2 - place[:, None]) / STRIDE, 0)
    maps[5] = torch.where(known, ((boxes[2] - boxes[0]).clamp(min=1) / TYPICAL).log(), 0)
    maps[6] = torch.where(known, ((boxes[3] - boxes[1]).clamp(min=1) / TYPICAL).log(), 0)
    return maps[None]


def test_loss_is_nothing_for_what_is_right_and_grows_with_what_is_not() -> None:
    targets = stacked(crop_of(MarkedCell("red", 10, 20, 40, 44), MarkedCell("white", 2, 2, 30, 18)))
    maps = perfect_maps(targets)
    heat, box = locator_loss(maps, targets)
    assert float(heat) == pytest.approx(0, abs=1e-3)
    assert float(box) == pytest.approx(0, abs=1e-4)
    moved = maps.clone()
    moved[:, 3] += 1.0  # a step of 4 pixels to the right
    assert float(locator_loss(moved, targets)[1]) > 0.1
    missed = maps.clone()
    missed[:, :3] = -20.0
    assert float(locator_loss(missed, targets)[0]) > 5


def test_box_loss_is_one_less_the_overlap_and_the_sides() -> None:
    targets = stacked(crop_of(MarkedCell("red", 16, 16, 48, 48)))
    maps = perfect_maps(targets)
    maps[:, 5] += float(np.log(2))  # twice as wide
    _, box = locator_loss(maps, targets)
    assert float(box) == pytest.approx(1 - 1 / 2 + 0.5 * np.log(2), abs=1e-4)


def test_boxes_are_read_as_they_are_written() -> None:
    maps = torch.zeros(1, 4, 3, 5)
    x0, y0, x1, y1 = decode_boxes(maps)[0, :, 1, 2].tolist()
    assert (x0, y0, x1, y1) == pytest.approx((10 - 16, 6 - 16, 10 + 16, 6 + 16))


def test_network_gives_maps_a_quarter_as_large() -> None:
    network = LocatorNetwork(width=8).eval()
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 7, 16, 24)
    assert sum(p.numel() for p in LocatorNetwork().parameters()) < 2_000_000


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"crop": 100}, "crop must be a multiple of 16 from 64 on, not 100"),
        ({"steps": 0}, "steps must be from 1 to 1e.07, not 0"),
        ({"stop_after": 4000}, "stop_after must be from 1 to 3000, not 4000"),
        ({"stop_after": 250}, "stop_after must be a multiple of 100, not 250"),
        ({"scales": 9.0}, "scales must be from 1 to 4, not 9"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocatorRecipe(**setting)  # type: ignore[arg-type]


def test_a_laboratory_that_is_none_cannot_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no fields are of 'elsewhere'; the sets are bccd"):
        load_fields(LocatorRecipe(leave_out="elsewhere"), tmp_path)


def test_crops_are_shared_out_as_asked() -> None:
    drawn = draw_fields(2, 0)
    data = LocatorData({"a": drawn * 8, "b": drawn * 2, DRAWN: drawn}, "digest")
    shares = data.shares(0.25)
    assert shares[DRAWN] == 0.25
    assert shares["a"] == pytest.approx(2 * shares["b"])
    crops = draw_crops(data, LocatorRecipe(), 5, np.random.default_rng(0))
    assert [crop.image.shape for crop in crops] == [(192, 192, 3)] * 5
    assert all(isinstance(Image.fromarray(crop.image), Image.Image) for crop in crops)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipe = LocatorRecipe(width=8, crop=64, steps=200, batch_size=2, precision="fp32")
    data = LocatorData({DRAWN: draw_fields(3, 0)}, "drawn")
    whole = fit_locator(recipe, data, tmp_path / "whole")

    fit_locator(replace(recipe, stop_after=100), data, tmp_path / "parts")
    assert len((tmp_path / "parts" / "metrics.csv").read_text().splitlines()) == 2
    resumed = fit_locator(recipe, data, tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert len((tmp_path / "parts" / "metrics.csv").read_text().splitlines()) == 3
    other = replace(recipe, learning_rate=1e-4)
    with pytest.raises(TrainingError, match="holds a run of another recipe or of other fields"):
        fit_locator(other, data, tmp_path / "parts")
