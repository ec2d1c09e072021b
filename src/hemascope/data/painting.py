"""How drawn cells are painted: every part of a cell is a layer of dye over what is there already.

A layer is a coverage (h,w) in 0..1 and an optical density (3,), so that overlapping cells darken
each other as in a stained smear (Beer and Lambert's law). A shape is its depth (h,w): pixels inside
the outline, negative outside. The density (H,W,3) that is painted on may be of any size.
"""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, radians, sin, sqrt
from typing import TypeAlias

import numpy as np
from PIL import Image

from hemascope.arrays import BoolArray, Float32Array, FloatArray
from hemascope.data.morphology import (
    GROUND,
    PARACHROMATIN,
    RED_CELLS,
    Colour,
    Form,
    Granules,
    Nucleus,
    Range,
    Stain,
)

Rng: TypeAlias = np.random.Generator
PaintedBox: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1 of what was painted, in pixels, past the border where the cell is cut off."""


def paint_red_cell(
    density: Float32Array,
    rng: Rng,
    centre: FloatArray,
    radius: float,
    stain: Float32Array,
    pallor: float,
    blur: float,
) -> PaintedBox:
    """One red cell over what is there already; its box."""
    view, x, y = _window(density, centre, radius * 1.4)
    depth = _disc(rng, x, y, radius, RED_CELLS.elongation, RED_CELLS.bulges)
    dimple = _smooth(depth, 0.5 * radius, 0.25 * radius) * pallor * rng.uniform(0.8, 1.0)
    rim = 1 + 0.12 * np.exp(-np.square((depth - 4) / 5))
    layer = (_cover(depth, blur) * rim * (1 - dimple))[..., None] * stain
    # Two red cells on each other are less than twice as dark: they are pressed flatter there.
    view[:] = np.maximum(view, layer) + 0.3 * np.minimum(view, layer)
    return _box_of(depth > 0, x, y, centre)


def paint_cell(
    density: Float32Array, rng: Rng, form: Form, centre: FloatArray, radius: float
) -> PaintedBox:
    """One nucleated cell or platelet over what is there already; its box."""
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
    return _box_of(cell > 0, x, y, centre)


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
    lobes, fold = draw_count(rng, nucleus.lobes), radius * rng.uniform(*nucleus.folds)
    x, y = _warp(rng, x, y, fold, radius / 3)
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
    chromatin = np.broadcast_to(mix(rng, nucleus.stain), (*depth.shape, 3)).copy()
    _lay(chromatin, gaps, _density(PARACHROMATIN))
    return chromatin


def _paint_granules(
    layers: Float32Array, rng: Rng, granules: Granules, depth: Float32Array
) -> None:
    """Round spots at random places inside a shape."""
    rows, columns = np.nonzero(depth > granules.margin)
    if not len(rows):
        return
    number, radius = draw_count(rng, granules.number), rng.uniform(*granules.radius)
    chosen = rng.integers(len(rows), size=number)
    step = np.arange(-int(2 * radius) - 1, int(2 * radius) + 2)
    spot = np.exp(-(((step[:, None] ** 2 + step**2) / radius**2) ** 1.5)).astype(np.float32)
    row = np.clip(rows[chosen, None, None] + step[:, None], 0, depth.shape[0] - 1)
    column = np.clip(columns[chosen, None, None] + step, 0, depth.shape[1] - 1)
    opacity = rng.uniform(*granules.opacity, (number, 1, 1)).astype(np.float32)
    cover = np.zeros(depth.size, np.float32)
    # (number,k,k) spots into the flat image; the most opaque of those on a pixel shows.
    np.maximum.at(cover, (row * depth.shape[1] + column).ravel(), (opacity * spot).ravel())
    _lay(layers, cover.reshape(depth.shape) * _cover(depth), mix(rng, granules.stain))


def _box_of(inside: BoolArray, x: Float32Array, y: Float32Array, centre: FloatArray) -> PaintedBox:
    """The box around what is inside a shape; empty where nothing of it is in the window."""
    columns, rows = np.nonzero(inside.any(axis=0))[0], np.nonzero(inside.any(axis=1))[0]
    if not len(columns):
        return (0.0, 0.0, 0.0, 0.0)
    left, top = float(x[0, columns[0]] + centre[0]), float(y[rows[0], 0] + centre[1])
    right, bottom = float(x[0, columns[-1]] + centre[0]), float(y[rows[-1], 0] + centre[1])
    return (left, top, right + 1, bottom + 1)


def _window(
    density: Float32Array, centre: FloatArray, reach: float
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """The part of the field around a place, and x (1,w) and y (h,1) from there, in pixels."""
    (left, top) = (max(0, int(c - reach)) for c in centre)
    height, width = density.shape[:2]
    right, bottom = (
        min(side, max(0, int(c + reach) + 1))
        for side, c in zip((width, height), centre, strict=True)
    )
    x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(centre[0])
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre[1])
    return density[top:bottom, left:right], x, y


def _disc(
    rng: Rng, x: Float32Array, y: Float32Array, radius: float, elongation: Range, bulges: Range
) -> Float32Array:
    """A round cell's outline with its irregularities, as a depth (h,w)."""
    x, y = _warp(rng, x, y, radius * rng.uniform(*bulges), radius * 0.8)
    turn, stretch = rng.uniform(0, pi), sqrt(rng.uniform(*elongation))
    along = (x * cos(turn) + y * sin(turn)) / stretch
    across = (y * cos(turn) - x * sin(turn)) * stretch
    return np.float32(radius) - np.hypot(along, across)


def _warp(
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
    low_pass = _low_pass(rows, columns, grain, step)
    white = rng.standard_normal((2, *low_pass.shape), np.float32)
    blobs = np.fft.irfft2((white[0] + 1j * white[1]) * low_pass, (rows, columns))
    smooth: Float32Array = ((blobs - blobs.mean()) / blobs.std()).astype(np.float32)
    if step > 1:
        image = Image.fromarray(smooth).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        return np.asarray(image, np.float32)
    return smooth[: shape[0], : shape[1]]


def _low_pass(rows: int, columns: int, grain: float, step: float) -> Float32Array:
    """A Gaussian blur, as a factor on the spectrum (rows, columns//2+1) of noise."""
    # 0.3 makes the blobs' full width at half maximum 1.
    return _low_pass_of(rows, columns, float(-2 * np.square(pi * 0.3 * grain / step)))


@lru_cache(maxsize=256)  # most noise is of as many blobs
def _low_pass_of(rows: int, columns: int, exponent: float) -> Float32Array:
    squared = (
        np.square(np.fft.fftfreq(rows))[:, None] + np.square(np.fft.rfftfreq(columns))[None, :]
    )
    low_pass: Float32Array = np.exp(exponent * squared).astype(np.float32)
    return low_pass


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


def mix(rng: Rng, stain: Stain) -> Float32Array:
    """One mixture of the stain's two colours, as optical density (3,)."""
    part = rng.uniform()
    return _density(stain[0]) * part + _density(stain[1]) * (1 - part)


def _density(colour: Colour) -> Float32Array:
    """A colour as optical density (3,) over the ground."""
    return np.log10(np.divide(GROUND, colour)).astype(np.float32)


def draw_count(rng: Rng, numbers: Range) -> int:
    return int(rng.integers(int(numbers[0]), int(numbers[1]) + 1))
