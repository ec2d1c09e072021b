"""Drawn cells: single blood cells among red cells, by seed, for demos and tests.

They look much like the cells of the PBC data set, to people and to classifiers, and need no
download. They are never for claims about accuracy: they show what the records in `morphology.py`
say of each class, and nothing of what makes real cells hard to tell apart.

Everything is a layer of dye: a coverage (h,w) in 0..1 and an optical density (3,), so that
overlapping cells darken each other as in a stained smear (Beer and Lambert's law). A shape is its
depth (h,w): pixels inside the outline, negative outside.
"""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Iterable
from math import cos, pi, radians, sin, sqrt
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from hemascope.arrays import Float32Array, FloatArray
from hemascope.classes import BLOOD_CELLS
from hemascope.data.morphology import (
    FORMS,
    GROUND,
    PARACHROMATIN,
    PLATELET,
    RED_CELLS,
    Colour,
    Form,
    Granules,
    Nucleus,
    Range,
    Stain,
)
from hemascope.files import atomic_path

Rng: TypeAlias = np.random.Generator

FIELD = 360  # pixels a side that are drawn, whatever size is asked for


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
    _paint_cell(density, rng, form, centre, radius)
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
            image.save(temporary)
    return paths


def _drawable(label: str) -> str:
    cell_class = BLOOD_CELLS.find(label)
    if cell_class is None or cell_class.name not in FORMS:
        raise ValueError(f"cannot draw a '{label}'; the classes are {', '.join(FORMS)}")
    return cell_class.name


def _paint_red_cells(density: Float32Array, rng: Rng, centre: FloatArray, radius: float) -> None:
    """Red cells wherever there is room, some under each other and under the rim of the cell."""
    stain, typical = _mix(rng, RED_CELLS.stain), rng.uniform(*RED_CELLS.radius)
    pallor, blur = rng.uniform(*RED_CELLS.pallor), rng.uniform(*RED_CELLS.blur)
    places, sizes = np.array([centre]), np.array([radius])
    for _ in range(_count(rng, RED_CELLS.tries)):
        place, size = rng.uniform(-30, FIELD + 30, 2), typical * rng.normal(1, 0.06)
        room = np.min(np.hypot(*(places - place).T) - sizes)
        if room < size * (0.45 if rng.random() < RED_CELLS.overlapping else 0.95):
            continue
        places, sizes = np.vstack([places, place]), np.append(sizes, size)
        view, x, y = _window(density, place, size * 1.4)
        depth = _disc(rng, x, y, size, RED_CELLS.elongation, RED_CELLS.bulges)
        dimple = _smooth(depth, 0.5 * size, 0.25 * size) * pallor * rng.uniform(0.8, 1.0)
        rim = 1 + 0.12 * np.exp(-np.square((depth - 4) / 5))
        layer = (_cover(depth, blur) * rim * (1 - dimple))[..., None] * stain
        # Two red cells on each other are less than twice as dark: they are pressed flatter there.
        view[:] = np.maximum(view, layer) + 0.3 * np.minimum(view, layer)


def _paint_stray_platelets(
    density: Float32Array, rng: Rng, centre: FloatArray, radius: float
) -> None:
    """A few small platelets on free ground, away from the cell."""
    for _ in range(rng.poisson(1.5)):
        angle, distance = rng.uniform(0, 2 * pi), rng.uniform(radius + 30, FIELD / 2 - 10)
        place = centre + distance * np.array([cos(angle), sin(angle)])
        column, row = np.clip(place, 0, FIELD - 1).astype(int)
        if density[row, column].sum() < 0.02:
            _paint_cell(density, rng, PLATELET, place, rng.uniform(8, 16))


def _paint_cell(
    density: Float32Array, rng: Rng, form: Form, centre: FloatArray, radius: float
) -> None:
    """One nucleated cell or platelet over what is there already."""
    view, x, y = _window(density, centre, radius * 1.35 + 4)
    cell = _disc(rng, x, y, radius, form.elongation, form.bulges)
    cell = cell + rng.uniform(*form.fringe) * _noise(rng, cell.shape, 7.0)
    layers, cytoplasm = _cytoplasm(rng, form, cell.shape), cell
    if form.nucleus is not None:
        nucleus = np.minimum(_nucleus_depth(rng, form.nucleus, x, y, radius), cell - 1.5)
        cytoplasm = np.minimum(cell, -nucleus)
        _lay(layers, _cover(nucleus), _chromatin(rng, form.nucleus, nucleus))
    for granules in form.granules:
        _paint_granules(layers, rng, granules, cell if granules.over_nucleus else cytoplasm)
    _lay(view, _cover(cell, 4.0), layers)


def _cytoplasm(rng: Rng, form: Form, shape: tuple[int, ...]) -> Float32Array:
    """The cytoplasm's optical density (h,w,3): mottled, and of uneven hue."""
    pale = np.clip(rng.uniform() + 0.25 * _noise(rng, shape, 20.0), 0, 1)
    cytoplasm = np.broadcast_to(_density(form.cytoplasm[0]), (*shape, 3)).copy()
    _lay(cytoplasm, pale, _density(form.cytoplasm[1]))
    cytoplasm *= 1 + rng.uniform(*form.mottling) * _noise(rng, shape, 3.5)[..., None]
    return cytoplasm


def _nucleus_depth(
    rng: Rng, nucleus: Nucleus, x: Float32Array, y: Float32Array, radius: float
) -> Float32Array:
    """Lobes along an arc and the bridges between them, melted together, as a depth (h,w)."""
    lobes, fold = _count(rng, nucleus.lobes), radius * rng.uniform(*nucleus.folds)
    x, y = _warped(rng, x, y, fold, radius / 3)
    turn, span = rng.uniform(0, 2 * pi), radians(rng.uniform(*nucleus.span))
    angles = turn + (np.linspace(-0.5, 0.5, lobes) if lobes > 1 else np.zeros(1)) * span
    arc = radius * rng.uniform(*nucleus.arc) * rng.normal(1, 0.12, lobes)
    middles = np.stack([arc * np.cos(angles), arc * np.sin(angles)], axis=1)  # (lobes,2)
    away, offset = rng.uniform(0, 2 * pi), radius * rng.uniform(*nucleus.offset)
    middles += offset * np.array([cos(away), sin(away)]) - middles.mean(axis=0)
    sizes = radius * rng.uniform(*nucleus.lobe) * rng.normal(1, 0.06, lobes)
    parts = [size - _distance_to(x, y, m, m) for size, m in zip(sizes, middles, strict=True)]
    for start, end, size in zip(middles[:-1], middles[1:], sizes[:-1], strict=True):
        parts.append(size * rng.uniform(*nucleus.bridge) - _distance_to(x, y, start, end))
    melt = 2.5  # pixels over which two parts flow together
    depth: Float32Array = melt * np.log(sum(np.exp(part / melt) for part in parts))
    return depth


def _chromatin(rng: Rng, nucleus: Nucleus, depth: Float32Array) -> Float32Array:
    """The nucleus's optical density (h,w,3): dark clumps, lighter gaps, a membrane without gaps."""
    texture = _noise(rng, depth.shape, rng.uniform(*nucleus.grain))
    texture = texture + 0.5 * _noise(rng, depth.shape, 2.2)
    gaps = rng.uniform(*nucleus.gaps) * _smooth(texture, 0.5, 1.5) * (1 - _edge(depth - 2))
    chromatin = np.broadcast_to(_mix(rng, nucleus.stain), (*depth.shape, 3)).copy()
    _lay(chromatin, gaps, _density(PARACHROMATIN))
    return chromatin


def _paint_granules(
    layers: Float32Array, rng: Rng, granules: Granules, depth: Float32Array
) -> None:
    """Round spots at random places inside a shape."""
    rows, columns = np.nonzero(depth > granules.margin)
    if not len(rows):
        return
    number, radius = _count(rng, granules.number), rng.uniform(*granules.radius)
    chosen = rng.integers(len(rows), size=number)
    step = np.arange(-int(2 * radius) - 1, int(2 * radius) + 2)
    spot = np.exp(-(((step[:, None] ** 2 + step**2) / radius**2) ** 1.5)).astype(np.float32)
    row = np.clip(rows[chosen, None, None] + step[:, None], 0, depth.shape[0] - 1)
    column = np.clip(columns[chosen, None, None] + step, 0, depth.shape[1] - 1)
    opacity = rng.uniform(*granules.opacity, (number, 1, 1)).astype(np.float32)
    cover = np.zeros(depth.size, np.float32)
    # (number,k,k) spots into the flat image; the most opaque of those on a pixel shows.
    np.maximum.at(cover, (row * depth.shape[1] + column).ravel(), (opacity * spot).ravel())
    _lay(layers, cover.reshape(depth.shape) * _cover(depth), _mix(rng, granules.stain))


def _window(
    density: Float32Array, centre: FloatArray, reach: float
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """The part of the field around a place, and x (1,w) and y (h,1) from there, in pixels."""
    (left, top) = (max(0, int(c - reach)) for c in centre)
    (right, bottom) = (min(FIELD, max(0, int(c + reach) + 1)) for c in centre)
    x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(centre[0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre[1])
    return density[top:bottom, left:right], x, y


def _disc(
    rng: Rng, x: Float32Array, y: Float32Array, radius: float, elongation: Range, bulges: Range
) -> Float32Array:
    """A round cell's outline with its irregularities, as a depth (h,w)."""
    x, y = _warped(rng, x, y, radius * rng.uniform(*bulges), radius * 0.8)
    turn, stretch = rng.uniform(0, pi), sqrt(rng.uniform(*elongation))
    along = (x * cos(turn) + y * sin(turn)) / stretch
    across = (y * cos(turn) - x * sin(turn)) * stretch
    return np.float32(radius) - np.hypot(along, across)


def _warped(
    rng: Rng, x: Float32Array, y: Float32Array, amount: float, grain: float
) -> tuple[Float32Array, Float32Array]:
    """Coordinates bent by smooth noise, so that no outline is a perfect circle."""
    shape = (y.shape[0], x.shape[1])
    return x + amount * _noise(rng, shape, grain), y + amount * _noise(rng, shape, grain)


def _distance_to(
    x: Float32Array, y: Float32Array, start: FloatArray, end: FloatArray
) -> Float32Array:
    """Distance of every point from the straight line between two points, (h,w)."""
    (x0, y0), (dx, dy) = start.tolist(), (end - start).tolist()
    along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-6)
    along = np.clip(along, 0, 1)
    distance: Float32Array = np.hypot(x - x0 - along * dx, y - y0 - along * dy)
    return distance


def _noise(rng: Rng, shape: tuple[int, ...], grain: float) -> Float32Array:
    """Smooth noise (h,w) of mean 0 and spread 1; `grain` is the width of its blobs in pixels."""
    step = max(1.0, grain / 5)  # coarse noise is made small and enlarged, which is far quicker
    rows, columns = (int(side / step) + 2 for side in shape)
    squared = (
        np.square(np.fft.fftfreq(rows))[:, None] + np.square(np.fft.rfftfreq(columns))[None, :]
    )
    white = rng.standard_normal((2, *squared.shape), np.float32)
    # A Gaussian blur, done on the spectrum; 0.3 makes the blobs' full width at half maximum 1.
    low_pass = np.exp(-2 * np.square(pi * 0.3 * grain / step) * squared).astype(np.float32)
    blobs = np.fft.irfft2((white[0] + 1j * white[1]) * low_pass, (rows, columns))
    smooth: Float32Array = ((blobs - blobs.mean()) / blobs.std()).astype(np.float32)
    if step > 1:
        image = Image.fromarray(smooth).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        return np.asarray(image, np.float32)
    return smooth[: shape[0], : shape[1]]


def _cover(depth: Float32Array, blur: float = 1.5) -> Float32Array:
    """1 inside a shape, 0 outside, with an edge `blur` pixels wide on either side."""
    return _smooth(depth, 0.0, blur)


def _smooth(depth: Float32Array, middle: float, width: float) -> Float32Array:
    """From 0 to 1 as the depth goes from `middle - width` to `middle + width`."""
    t: Float32Array = np.clip((depth - middle) / (2 * width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _edge(depth: Float32Array) -> Float32Array:
    """1 on an outline, falling off within a few pixels on both sides."""
    near: Float32Array = np.exp(-np.abs(depth) / 2.5)
    return near


def _lay(density: Float32Array, cover: Float32Array, stain: Float32Array) -> None:
    """Replace a density (h,w,3) by another, (h,w,3) or (3,), where that covers it; in place."""
    density += cover[..., None] * (stain - density)


def _mix(rng: Rng, stain: Stain) -> Float32Array:
    """One mixture of the stain's two colours, as optical density (3,)."""
    part = rng.uniform()
    return _density(stain[0]) * part + _density(stain[1]) * (1 - part)


def _density(colour: Colour) -> Float32Array:
    """A colour as optical density (3,) over the ground."""
    return np.log10(np.divide(GROUND, colour)).astype(np.float32)


def _count(rng: Rng, numbers: Range) -> int:
    return int(rng.integers(int(numbers[0]), int(numbers[1]) + 1))


def _photograph(density: Float32Array, rng: Rng) -> Image.Image:
    """What the camera makes of it: uneven light, noise, a soft lens, JPEG."""
    ground = np.array(GROUND, np.float32) + rng.normal(0, 1, 3).astype(np.float32)
    slope_x, slope_y = rng.uniform(-0.012, 0.012, 2).astype(np.float32)
    ramp = np.linspace(-1, 1, FIELD, dtype=np.float32)
    light = 1 + slope_x * ramp + slope_y * ramp[:, None]  # (h,w)
    picture = light[..., None] * ground * np.exp(density * np.float32(-np.log(10)))
    picture += 3 * rng.standard_normal(picture.shape, np.float32)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.35, 0.65)))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=75, subsampling=0)  # as PBC's images are
    return Image.open(encoded).convert("RGB")
