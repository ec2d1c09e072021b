"""Image statistics, against images whose every number is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hemascope.metrics.appearance import (
    STATISTICS,
    central_object,
    optical_density,
    otsu,
    sharpness,
    stain_vectors,
    statistics,
)

RNG = np.random.default_rng(0)
GROUND = np.array([250.0, 230.0, 200.0])
EOSIN = np.array([0.30, 0.75, 0.59])
AZURE = np.array([0.60, 0.78, 0.18])


def unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def stained_field() -> NDArray[np.float64]:
    """Density (128,128,3): red cells above, nuclei below, ground between."""
    amount = np.zeros((128, 128, 2))
    amount[:50, :, 0] = RNG.uniform(0.2, 0.6, (50, 128))
    amount[80:, :, 1] = RNG.uniform(0.5, 1.0, (48, 128))
    return amount @ np.stack([unit(EOSIN), unit(AZURE)])


def test_density_is_what_light_the_ground_lets_through() -> None:
    image = np.array([[[250, 23, 2], [255, 230, 0]]], dtype=np.uint8)
    expected = [[0, 1, 2], [0, 0, np.log10(200)]]
    assert optical_density(image, GROUND)[0] == pytest.approx(np.array(expected))


def test_the_two_stains_are_found_whatever_the_amounts() -> None:
    eosin, azure = stain_vectors(stained_field())
    assert eosin == pytest.approx(unit(EOSIN), abs=1e-6)
    assert azure == pytest.approx(unit(AZURE), abs=1e-6)


def test_a_few_odd_pixels_do_not_move_the_stains() -> None:
    field = stained_field()
    rows, columns = RNG.integers(0, 128, (2, 60))  # under the percentile's share
    field[rows, columns] = (0.1, 0.1, 0.9)
    eosin, azure = stain_vectors(field)
    assert eosin @ unit(EOSIN) > 0.995
    assert azure @ unit(AZURE) > 0.995


def test_an_image_of_ground_has_no_stain_and_no_object() -> None:
    image = np.broadcast_to(GROUND.astype(np.uint8), (32, 32, 3))
    found = dict(zip(STATISTICS, statistics(image, GROUND, 0.1), strict=True))
    assert found["ground, red"] == 250
    assert found["sharpness"] == 0
    assert np.isnan(
        [found["angle between the stains"], found["diameter of the central object"]]
    ).all()


def test_statistics_of_a_drawn_nucleus() -> None:
    y, x = np.mgrid[:128, :128] - 63.5
    density = np.zeros((128, 128, 3))
    density[np.hypot(x, y) < 32] = 0.9 * unit(AZURE)
    density[:, :12] = 0.3 * unit(EOSIN)  # a red cell, off the middle
    image = np.rint(GROUND * 10**-density).astype(np.uint8)
    found = dict(zip(STATISTICS, statistics(image, GROUND, 0.162), strict=True))
    assert found["diameter of the central object"] == pytest.approx(64 * 0.162, rel=0.03)
    assert found["darkness of the central object"] == pytest.approx(0.9 * unit(AZURE)[0], rel=0.05)
    shares = [found[f"azure-like stain, share of {light} light"] for light in ("red", "blue")]
    assert shares == pytest.approx((AZURE / AZURE.sum())[[0, 2]], abs=0.01)
    shares = [found[f"eosin-like stain, share of {light} light"] for light in ("red", "blue")]
    assert shares == pytest.approx((EOSIN / EOSIN.sum())[[0, 2]], abs=0.02)
    between = np.degrees(np.arccos(unit(EOSIN) @ unit(AZURE)))
    assert found["angle between the stains"] == pytest.approx(between, abs=1.5)


def test_lobes_are_one_object_and_what_lies_outside_is_none() -> None:
    density = np.zeros((128, 128))
    density[50:70, 40:60] = density[50:70, 68:88] = 1.0
    density[2:20, 2:20] = 1.0
    inside = central_object(density)
    assert inside[60, 50]
    assert inside[60, 78]
    assert not inside[:30, :30].any()
    assert not central_object(np.zeros((32, 32))).any()


def test_sharpness_is_of_detail_not_of_contrast() -> None:
    field = RNG.random((64, 64, 3))
    smooth = np.cumsum(np.cumsum(field - 0.5, axis=0), axis=1)
    assert sharpness(3 * field) == pytest.approx(sharpness(field))
    assert sharpness(smooth) < sharpness(field) / 50
    wave = np.repeat(np.tile([0.0, 1.0], (64, 32))[:, :, None], 3, axis=2)
    # Stripes of one pixel: the Laplacian is ±2, of variance 4; their own variance is 1/4.
    assert sharpness(wave) == pytest.approx(16, rel=0.05)


def test_otsus_threshold_is_the_best_of_all() -> None:
    values = np.concatenate([RNG.normal(0.2, 0.05, 500), RNG.normal(0.8, 0.1, 200)])

    def spread(threshold: float) -> float:
        groups = values[values <= threshold], values[values > threshold]
        return sum(group.size * group.var() for group in groups)

    best = min(
        spread(threshold) for threshold in np.linspace(values.min(), values.max(), 2000)[1:-1]
    )
    assert spread(otsu(values)) == pytest.approx(best, rel=1e-3)
    assert otsu(np.full(9, 0.3)) == 0.3
