"""Drawn cells: single blood cells among red cells, by seed, for demos and tests.

They look much like the cells of the PBC data set, to people and to classifiers, and need no
download. They are never for claims about accuracy: they show what the records in `morphology.py`
say of each class, and nothing of what makes real cells hard to tell apart.
"""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Iterable
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from hemascope.arrays import Float32Array, FloatArray
from hemascope.classes import BLOOD_CELLS
from hemascope.data.morphology import FORMS, GROUND, PLATELET, RED_CELLS
from hemascope.data.painting import Rng, draw_count, mix, paint_cell, paint_red_cell
from hemascope.files import atomic_path

FIELD = 360  # pixels a side that are drawn, whatever size is asked for
PNG_LEVEL = 1  # files a fifth larger than by default, in a third of the time


def draw_cell(label: str, seed: int, size: int = 360) -> Image.Image:
    """One cell of a class amid red cells, (size,size) RGB; the same seed draws the same cell.

    The field is that of PBC's images, 360 px, whatever its size in pixels. Raises ValueError for
    a class that it cannot draw, a negative seed, and a size below one.
    """
    name = _drawable(label)
    if seed < 0 or size < 1:
        raise ValueError(f"seed must be at least 0 and size at least 1, not {seed} and {size}")
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    form = FORMS[name][rng.integers(len(FORMS[name]))]
    density = np.zeros((FIELD, FIELD, 3), np.float32)
    centre, radius = FIELD / 2 + rng.normal(0, 2.5, 2), rng.uniform(*form.radius)
    _paint_red_cells(density, rng, centre, radius)
    _paint_stray_platelets(density, rng, centre, radius)
    paint_cell(density, rng, form, centre, radius)
    image = _photograph(density, rng)
    return image if size == FIELD else image.resize((size, size), Image.Resampling.LANCZOS)


def draw_folder(
    folder: Path,
    per_class: int,
    seed: int = 0,
    classes: Iterable[str] = BLOOD_CELLS.names,
    size: int = 360,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Drawn cells as PNG files, one folder a class; the paths written, in order.

    Seeds run from `seed` on, `per_class` of them; a file is named `<label>_<seed>.png`. Before
    anything is written, raises ValueError for a class that cannot be drawn or for fewer than one
    cell a class, and FileExistsError for a file that exists, unless it may be overwritten.
    """
    if per_class < 1:
        raise ValueError(f"at least one cell a class must be drawn, not {per_class}")
    labels = tuple(classes)
    for label in labels:
        _drawable(label)
    cells = [(label, number) for label in labels for number in range(seed, seed + per_class)]
    paths = tuple(folder / label / f"{label}_{number}.png" for label, number in cells)
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(errno.EEXIST, "exists already", str(path))
    for (label, number), path in zip(cells, paths, strict=True):
        image = draw_cell(label, number, size)
        with atomic_path(path) as temporary:
            image.save(temporary, compress_level=PNG_LEVEL)
    return paths


def _drawable(label: str) -> str:
    cell_class = BLOOD_CELLS.find(label)
    if cell_class is None or cell_class.name not in FORMS:
        raise ValueError(f"cannot draw a '{label}'; the classes are {', '.join(FORMS)}")
    return cell_class.name


def _paint_red_cells(density: Float32Array, rng: Rng, centre: FloatArray, radius: float) -> None:
    """Red cells wherever there is room, some under each other and under the rim of the cell."""
    stain, typical = mix(rng, RED_CELLS.stain), rng.uniform(*RED_CELLS.radius)
    pallor, blur = rng.uniform(*RED_CELLS.pallor), rng.uniform(*RED_CELLS.blur)
    positions, sizes = np.array([centre]), np.array([radius])
    for _ in range(draw_count(rng, RED_CELLS.tries)):
        position, size = rng.uniform(-30, FIELD + 30, 2), typical * rng.normal(1, 0.06)
        room = np.min(np.hypot(*(positions - position).T) - sizes)
        if room < size * (0.45 if rng.random() < RED_CELLS.overlapping else 0.95):
            continue
        positions, sizes = np.vstack([positions, position]), np.append(sizes, size)
        paint_red_cell(density, rng, position, size, stain, pallor, blur)


def _paint_stray_platelets(
    density: Float32Array, rng: Rng, centre: FloatArray, radius: float
) -> None:
    """A few small platelets on free ground, away from the cell."""
    for _ in range(rng.poisson(1.5)):
        angle, distance = rng.uniform(0, 2 * pi), rng.uniform(radius + 30, FIELD / 2 - 10)
        position = centre + distance * np.array([cos(angle), sin(angle)])
        column, row = np.clip(position, 0, FIELD - 1).astype(int)
        if density[row, column].sum() < 0.02:
            paint_cell(density, rng, PLATELET, position, rng.uniform(8, 16))


def _photograph(density: Float32Array, rng: Rng) -> Image.Image:
    """What the camera makes of it: uneven light, noise, a soft lens, JPEG."""
    ground = np.array(GROUND, np.float32) + rng.normal(0, 1, 3).astype(np.float32)
    slope_x, slope_y = rng.uniform(-0.012, 0.012, 2).astype(np.float32)
    ramp = np.linspace(-1, 1, FIELD, dtype=np.float32)
    light = 1 + slope_x * ramp + slope_y * ramp[:, None]  # (h,w)
    density *= np.float32(-np.log(10))
    pixels = np.exp(density, out=density)
    pixels *= light[..., None] * ground
    noise = rng.standard_normal(pixels.shape, np.float32)
    noise *= 3
    pixels += noise
    image = Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.35, 0.65)))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=75, subsampling=0)  # as PBC's images are
    return Image.open(encoded).convert("RGB")
