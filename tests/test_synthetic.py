"""Drawn cells: the same by seed, and with the morphology that tells the classes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import drawn
from hemascope.classes import BLOOD_CELLS
from hemascope.data.morphology import FORMS
from hemascope.data.synthetic import draw_cell, draw_folder

SEEDS = range(5)
Pixels = dict[str, NDArray[np.float64]]


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """(N,H,W,3) of every class, 0..255."""
    return {
        name: np.stack([np.asarray(draw_cell(name, seed), np.float64) for seed in SEEDS])
        for name in BLOOD_CELLS.names
    }


def nucleus(images: NDArray[np.float64]) -> NDArray[np.bool_]:
    """What is as dark and violet as a nucleus, (N,H,W), away from the rim of the field."""
    return (images[..., 1] < 90) & (images[..., 0] < 140) & near_the_middle(images, 95)


def cell(images: NDArray[np.float64]) -> NDArray[np.bool_]:
    """What is bluer than red cells and ground, (N,H,W): nuclei, and cytoplasm that is not pink."""
    return (images[..., 0] - images[..., 2] < 25) & near_the_middle(images, 95)


def near_the_middle(images: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: images.shape[1], : images.shape[2]]
    middle = (images.shape[1] - 1) / 2
    return np.hypot(rows - middle, columns - middle) < radius


def median_area(mask: NDArray[np.bool_]) -> float:
    return float(np.median(mask.sum(axis=(1, 2))))


def test_forms_are_given_for_every_class() -> None:
    assert set(FORMS) == set(BLOOD_CELLS.names)


@pytest.mark.parametrize("label", BLOOD_CELLS.names)
def test_a_seed_determines_the_image(label: str, pixels: Pixels) -> None:
    again = np.asarray(draw_cell(label, seed=0))
    assert np.array_equal(again, pixels[label][0])
    assert not np.array_equal(again, pixels[label][1])


def test_classes_do_not_share_their_random_numbers(pixels: Pixels) -> None:
    # Otherwise every class would have the same red cells around it.
    corner = (0, slice(0, 60), slice(0, 60))
    corners = {pixels[name][corner].tobytes() for name in BLOOD_CELLS.names}
    assert len(corners) == len(BLOOD_CELLS)


@pytest.mark.parametrize("size", [64, 360, 500])
def test_size_is_respected_and_shows_the_same_field(size: int, pixels: Pixels) -> None:
    image = draw_cell("lymphocyte", seed=0, size=size)
    assert (image.mode, image.size) == ("RGB", (size, size))
    field = np.asarray(image.resize((360, 360)), np.float64)
    assert np.abs(field - pixels["lymphocyte"][0]).mean() < 6


def test_a_class_may_be_named_by_an_alias(pixels: Pixels) -> None:
    assert np.array_equal(np.asarray(draw_cell("LY", seed=0)), pixels["lymphocyte"][0])


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot draw a 'blast'"):
        draw_cell("blast", seed=0)
    with pytest.raises(ValueError, match="seed must be"):
        draw_cell("ig", seed=-1)
    with pytest.raises(ValueError, match="size at least 1"):
        draw_cell("ig", seed=0, size=0)


def test_the_ground_has_the_colour_of_a_stained_smear(pixels: Pixels) -> None:
    for images in pixels.values():
        ground = images[images.min(axis=-1) > 190]
        np.testing.assert_allclose(np.median(ground, axis=0), (254, 228, 202), atol=3)


def test_the_cell_lies_in_the_middle(pixels: Pixels) -> None:
    for name in ("lymphocyte", "monocyte", "ig", "platelet"):
        images = pixels[name]
        mask = cell(images) & near_the_middle(images, 40 if name == "platelet" else 95)
        for one in mask:
            assert np.hypot(*(np.argwhere(one).mean(axis=0) - 179.5)) < 12, name


def test_platelets_have_no_nucleus(pixels: Pixels) -> None:
    areas = {name: median_area(nucleus(images)) for name, images in pixels.items()}
    platelet = areas.pop("platelet")
    assert platelet < min(areas.values()) / 2


def test_a_lymphocyte_is_nearly_filled_by_its_nucleus(pixels: Pixels) -> None:
    ratios = {
        name: median_area(nucleus(pixels[name])) / median_area(cell(pixels[name]))
        for name in ("lymphocyte", "monocyte", "ig", "erythroblast")
    }
    assert ratios.pop("lymphocyte") > max(ratios.values()) + 0.1


def test_sizes_stand_in_the_order_of_the_textbook(pixels: Pixels) -> None:
    areas = {n: median_area(cell(pixels[n])) for n in ("monocyte", "lymphocyte", "platelet")}
    assert areas["monocyte"] > 1.3 * areas["lymphocyte"] > 1.3 * areas["platelet"]
    assert median_area(nucleus(pixels["erythroblast"])) < median_area(nucleus(pixels["lymphocyte"]))


def test_a_neutrophils_nucleus_is_lobed_and_a_lymphocytes_is_round(pixels: Pixels) -> None:
    def outline_over_area(images: NDArray[np.float64]) -> float:
        # Light gaps within the chromatin do not count: 90 px a side are enough for the outline.
        coarse = nucleus(images).reshape(len(images), 90, 4, 90, 4).mean(axis=(2, 4)) > 0.4
        edges = sum((np.diff(coarse, axis=axis) != 0).sum(axis=(1, 2)) for axis in (1, 2))
        return float(np.median(edges**2 / coarse.sum(axis=(1, 2))))

    assert outline_over_area(pixels["neutrophil"]) > 1.5 * outline_over_area(pixels["lymphocyte"])


def test_granules_have_their_colours(pixels: Pixels) -> None:
    def cytoplasm(images: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = near_the_middle(images, 55) & (images[..., 1] > 95) & (images[..., 1] < 200)
        return np.asarray(images[inside].mean(axis=0))

    eosinophil, neutrophil = cytoplasm(pixels["eosinophil"]), cytoplasm(pixels["neutrophil"])
    assert eosinophil[0] - eosinophil[1] > neutrophil[0] - neutrophil[1] + 15  # redder
    assert eosinophil[0] > eosinophil[2] + 20  # orange, not violet
    basophil = median_area(nucleus(pixels["basophil"]))
    assert basophil > 1.3 * median_area(nucleus(pixels["neutrophil"]))  # granules over the nucleus


def test_a_folder_of_cells(tmp_path: Path) -> None:
    paths = draw_folder(
        tmp_path / "cells", per_class=2, seed=7, classes=("ig", "platelet"), size=90
    )
    names = [path.relative_to(tmp_path / "cells").as_posix() for path in paths]
    assert names == [
        "ig/ig_7.png",
        "ig/ig_8.png",
        "platelet/platelet_7.png",
        "platelet/platelet_8.png",
    ]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)
    with Image.open(paths[1]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(draw_cell("ig", 8, size=90)))


def test_a_folder_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    (path,) = draw_folder(tmp_path, per_class=1, classes=["platelet"], size=32)
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="exists already"):
        draw_folder(tmp_path, per_class=1, classes=["ig", "platelet"], size=32)
    assert path.read_bytes() == b"mine"
    assert not (tmp_path / "ig").exists()
    draw_folder(tmp_path, per_class=1, classes=["platelet"], size=32, overwrite=True)
    assert path.read_bytes() != b"mine"


def test_a_folder_that_cannot_be_drawn_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot draw a 'blast'"):
        draw_folder(tmp_path, per_class=1, classes=["ig", "blast"])
    with pytest.raises(ValueError, match="at least one cell"):
        draw_folder(tmp_path, per_class=0)
    with pytest.raises(ValueError, match="seed must be"):
        draw_folder(tmp_path, per_class=1, seed=-1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_cells_that_tests_share_are_those_of_the_library(tmp_path: Path) -> None:
    for size in (360, 80):
        ours = drawn.draw_folder(tmp_path / f"ours{size}", 1, seed=3, size=size)
        theirs = draw_folder(tmp_path / f"theirs{size}", 1, seed=3, size=size)
        assert [path.name for path in ours] == [path.name for path in theirs]
        assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]
        assert drawn.draw_cell("ig", 3, size).tobytes() == draw_cell("ig", 3, size).tobytes()
