"""Cells are found on fields of any size and magnification, with the scale."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drawn import draw_cell
from hemascope.data.marked_fields import FIELD_SETS
from hemascope.data.synthetic_fields import DrawnField, draw_field
from hemascope.errors import ImageError
from hemascope.metrics.detection import measure_detection
from hemascope.smear import views
from hemascope.smear.choose_thresholds import best_threshold, match_cells
from hemascope.smear.locate import Locator, _as_cells
from hemascope.smear.peaks import Found
from hemascope.smear.records import KINDS, LocatedField


@pytest.fixture(scope="module")
def locator() -> Locator:
    return Locator.from_bundle(threads=1)


def found_again(drawn: DrawnField, located: LocatedField, kind: str) -> tuple[int, int, int]:
    """How many cells of a kind are drawn, found, and right, of those that the border spares."""
    matches = match_cells(located, drawn.cells, kind, whole_only=True)  # type: ignore[arg-type]
    return matches.drawn, len(matches.scores), int(matches.is_right.sum())


@pytest.mark.parametrize("red_diameter", [16, 30, 71, 150])
def test_cells_are_found_at_any_magnification(locator: Locator, red_diameter: int) -> None:
    side = max(320, 8 * red_diameter)
    drawn = draw_field(7, side, side, red_diameter, white=1, crowding=0.3, plain=True)
    located = locator.locate(drawn.image)
    number, found, right = found_again(drawn, located, "red")
    assert right >= 0.9 * number
    assert right >= 0.9 * found
    assert found_again(drawn, located, "white") == (1, 1, 1)
    assert located.scale is not None
    assert located.scale.um_per_pixel == pytest.approx(drawn.um_per_pixel, rel=0.07)
    assert (located.width, located.height) == (side, side)


def test_a_known_scale_finds_the_same_cells(locator: Locator) -> None:
    drawn = draw_field(7, white=1, crowding=0.3, plain=True)
    known = locator.locate(drawn.image, um_per_pixel=drawn.um_per_pixel)
    number, _, right = found_again(drawn, known, "red")
    assert right >= 0.9 * number
    with pytest.raises(ValueError, match=r"a pixel must be 0\.02 to 2 micrometres wide"):
        locator.locate(drawn.image, um_per_pixel=9)


@pytest.mark.slow
def test_a_cell_on_a_seam_is_found_once(locator: Locator, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_field(11, 1200, 900, 40, white=4, crowding=0.4, plain=True)
    whole = locator.locate(drawn.image)
    monkeypatch.setattr(views, "TILE", 320)
    tiled = locator.locate(drawn.image)
    for kind in KINDS:
        number = len(whole.select(kind))
        assert len(tiled.select(kind)) == pytest.approx(number, abs=2, rel=0.02)
    centres = np.array([cell.centre for cell in tiled.select("red")])
    apart = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    assert apart[~np.eye(len(centres), dtype=bool)].min() > 5


@pytest.mark.slow
def test_a_field_that_is_empty_in_the_middle_tells_its_scale(locator: Locator) -> None:
    drawn = draw_field(7, 480, 480, 50, white=1, crowding=0.3, plain=True)
    sheet = Image.new("RGB", (2600, 2200), (250, 226, 200))
    sheet.paste(drawn.image, (60, 1600))
    located = locator.locate(sheet)
    assert located.scale is not None
    assert located.scale.um_per_pixel == pytest.approx(drawn.um_per_pixel, rel=0.07)
    assert len(located.select("white")) == 1


def test_cells_at_the_border_say_so(locator: Locator) -> None:
    drawn = draw_field(7, white=1, plain=True)
    for cell in locator.locate(drawn.image).cells:
        x0, y0, x1, y1 = cell.box
        assert 0 <= x0 < x1 <= 640
        assert 0 <= y0 < y1 <= 480
        if min(x0, y0, 640 - x1, 480 - y1) == 0:
            assert cell.at_border
        assert 0 < cell.score < 1


def test_slivers_of_red_cells_at_the_border_are_no_cells() -> None:
    boxes = np.array([(0, 50, 11, 80), (0, 50, 13, 80), (50, 50, 61, 80), (0, 50, 11, 80)], float)
    found = Found(np.array([1, 1, 1, 0]), np.full(4, 0.9), boxes)
    cells = _as_cells(found, KINDS, (100, 100), 30.0)
    assert [(cell.kind, cell.box[2], cell.at_border) for cell in cells] == [
        ("red", 13, True),
        ("red", 61, False),
        ("white", 11, True),
    ]


@pytest.mark.parametrize("colour", ["white", "black", (200, 180, 190)])
def test_a_page_without_cells_has_none(locator: Locator, colour: str) -> None:
    located = locator.locate(Image.new("RGB", (640, 480), colour))
    assert (located.cells, located.scale) == ((), None)
    assert located.scale_note.startswith("the scale cannot be told: ")


@pytest.mark.slow
def test_a_thousand_cells_on_a_field(locator: Locator) -> None:
    drawn = draw_field(5, 1700, 1300, 36, white=2, crowding=0.9, plain=True)
    assert len(drawn.select("red")) > 1000
    number, found, right = found_again(drawn, locator.locate(drawn.image), "red")
    assert right >= 0.85 * number
    assert right >= 0.85 * found


def test_damaged_files_are_passed_over(locator: Locator, tmp_path: Path) -> None:
    draw_field(1, 320, 240, 40).image.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    draw_field(2, 320, 240, 40).image.save(tmp_path / "c.png")
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    fields = list(locator.stream(paths))
    assert [field.path for field in fields] == [str(path) for path in paths]
    assert [field.status for field in fields] == ["ok", "not an image in a known format", "ok"]
    assert fields[1].cells == ()
    with pytest.raises(ImageError, match="not an image in a known format"):
        locator.locate(paths[1])


def test_a_locator_can_be_sent_to_another_process(locator: Locator) -> None:
    image = draw_field(1, 320, 240, 40).image
    assert pickle.loads(pickle.dumps(locator)).locate(image) == locator.locate(image)


def test_single_cells_tell_their_scale(locator: Locator) -> None:
    told = [locator.scale_of(draw_cell("lymphocyte", seed))[0] for seed in range(8)]
    widths = [scale.um_per_pixel for scale in told if scale is not None]
    assert len(widths) >= 6
    assert np.median(widths) == pytest.approx(7.2 / 71, rel=0.07)  # red cells of 66 to 76 pixels


def test_threshold_is_that_of_the_best_f1() -> None:
    from hemascope.metrics.detection import FieldMatches

    scores = np.array([0.9, 0.8, 0.7, 0.4, 0.35, 0.1])
    right = np.array([True, True, True, False, True, False])
    # F1 from each score on, of 4 drawn: 2/5, 4/6, 6/7, 6/8, 8/9, 8/10
    chosen = best_threshold([FieldMatches(scores, right, 4)])
    assert 0.1 < chosen <= 0.35


@pytest.mark.slow
def test_cells_of_real_fields_are_found(locator: Locator, real_data: Path) -> None:
    fields = [f for f in FIELD_SETS["bccd"].read(real_data) if f.split == "test"]
    matches = {kind: [] for kind in KINDS}
    for field in fields:
        located = locator.locate(field.path)
        for kind in KINDS:
            matches[kind].append(match_cells(located, field.cells, kind))
    white, red, _ = (measure_detection(kind, matches[kind], 0.0) for kind in KINDS)
    assert (white.recall.value or 0) >= 0.96
    assert (red.average_precision.value or 0) >= 0.88
