"""Drawn fields: whole views of a smear with known cells, by seed, for training and tests.

White cells, platelets alone and in clumps, and red cells that stand alone, touch and overlap;
beside them dirt, uneven light, a lens that is out of focus, and at times a burnt-in scale bar. They
are never for claims about accuracy.
"""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from hemascope.arrays import Float32Array, FloatArray
from hemascope.data.marked_fields import MarkedCell
from hemascope.data.morphology import FORMS, GROUND, PLATELET, RED_CELLS
from hemascope.data.painting import PaintedBox, Rng, draw_count, mix, paint_cell, paint_red_cell
from hemascope.data.synthetic import PNG_LEVEL
from hemascope.files import atomic_path

RED_MICRONS = 7.2
PAINTED_RED = 71.0  # pixels: a red cell's mean diameter where it is painted
LEAST_SEEN = 0.25  # of a cell's box; less of it at the border is not marked
NUCLEATED = tuple(name for name in FORMS if name != "platelet")
SMEAR = {"neutrophil": 58, "lymphocyte": 24, "monocyte": 7, "eosinophil": 3, "basophil": 1} | {
    "ig": 5,
    "erythroblast": 2,
}  # white cells of a mild left shift, in percent
SMEAR_SIZE, WHITE_PER_FIELD = (960, 720), 8
DIRT = ((60, 50, 40), (120, 140, 90), (40, 60, 110))


@dataclass(frozen=True)
class DrawnField:
    """A drawn field, the cells on it with their boxes, and how wide its pixels are.

    `labels` are the classes of the white cells, in the order that these have in `cells`.
    """

    image: Image.Image
    cells: tuple[MarkedCell, ...]
    um_per_pixel: float
    labels: tuple[str, ...]

    def select(self, kind: str) -> tuple[MarkedCell, ...]:
        """The cells of one kind."""
        return tuple(cell for cell in self.cells if cell.kind == kind)


def draw_field(
    seed: int,
    width: int = 640,
    height: int = 480,
    red_diameter: float = PAINTED_RED,
    white: int | None = None,
    crowding: float | None = None,
    plain: bool = False,
    labels: Sequence[str] | None = None,
) -> DrawnField:
    """A drawn field of width × height pixels whose red cells are about `red_diameter` wide.

    `white` is the number of white cells, one or two by default, and `crowding` from 0 (red cells
    far apart) to 1 (many on each other). A `plain` one has neither dirt, nor a scale bar, nor more
    blur than a good lens. `labels` are the classes of the white cells, by default any. The same
    seed draws the same field.

    Examples
    --------
    >>> from hemascope.data.synthetic_fields import draw_field
    >>> field = draw_field(seed=1, white=2)
    >>> field.image.size, len(field.select("white"))
    ((640, 480), 2)
    """
    rng = np.random.default_rng([zlib.crc32(b"field"), seed])
    zoom = PAINTED_RED / red_diameter
    shape = (round(height * zoom), round(width * zoom))
    painter = _Painter(np.zeros((*shape, 3), np.float32), rng)
    crowded = rng.uniform() if crowding is None else crowding
    radius = rng.uniform(*RED_CELLS.radius)
    number = int(rng.integers(1, 3)) if white is None else white
    for label in [None] * number if labels is None else labels:
        painter.add_white(label)
    painter.add_red_cells(radius, crowded)
    painter.add_platelets(int(rng.poisson(3)))
    if not plain:
        painter.add_dirt(int(rng.poisson(2)))
    image = _photograph(painter.density, rng, plain).resize((width, height), Image.Resampling.BOX)
    um_per_pixel = RED_MICRONS / (2 * radius / zoom)
    if not plain and rng.random() < 0.3:
        _draw_scale_bar(image, rng, um_per_pixel)
    cells = [_seen(kind, box, zoom, width, height) for kind, box in painter.painted]
    drawn = iter(painter.labels)
    of_white = [next(drawn) if kind == "white" else "" for kind, _ in painter.painted]
    kept = [(cell, label) for cell, label in zip(cells, of_white, strict=True) if cell is not None]
    return DrawnField(
        image,
        tuple(cell for cell, _ in kept),
        um_per_pixel,
        tuple(label for cell, label in kept if cell.kind == "white"),
    )


def draw_fields(folder: Path, fields: int, seed: int = 0, overwrite: bool = False) -> list[Path]:
    """Draws the fields of one smear as PNG files, with the white cells of a mild left shift.

    Before anything is written, raises ValueError for fewer than one field, and FileExistsError for
    a file that exists, unless it may be overwritten.
    """
    if fields < 1:
        raise ValueError(f"at least one field must be drawn, not {fields}")
    paths = [folder / f"field_{number:02d}.png" for number in range(fields)]
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(errno.EEXIST, "exists already", str(path))
    for path, field in zip(paths, draw_smear(fields, seed), strict=True):
        with atomic_path(path) as temporary:
            field.image.save(temporary, compress_level=PNG_LEVEL)
    return paths


def draw_smear(fields: int, seed: int = 0) -> Iterator[DrawnField]:
    """The fields of one smear, with the white cells of a mild left shift."""
    rng = np.random.default_rng([zlib.crc32(b"smear"), seed])
    shares = np.array(list(SMEAR.values())) / sum(SMEAR.values())
    for number in range(fields):
        labels = rng.choice(list(SMEAR), WHITE_PER_FIELD, p=shares).tolist()
        yield draw_field(
            seed * fields + number, *SMEAR_SIZE, crowding=0.3, plain=True, labels=labels
        )


class _Painter:
    """Puts cells where there is room, and keeps what was painted where."""

    def __init__(self, density: Float32Array, rng: Rng) -> None:
        self.density, self.rng = density, rng
        self.painted: list[tuple[str, PaintedBox]] = []
        self.labels: list[str] = []
        self.height, self.width = density.shape[:2]
        self._positions, self._sizes = np.zeros((0, 2)), np.zeros(0)

    def add_white(self, label: str | None = None) -> None:
        """One white cell of a class, or of any, wholly on the field where it fits."""
        rng = self.rng
        label = label or NUCLEATED[rng.integers(len(NUCLEATED))]
        form = FORMS[label][rng.integers(len(FORMS[label]))]
        radius = rng.uniform(*form.radius)
        for _ in range(50):
            place = self._place(-radius if rng.random() < 0.1 else radius)
            if self._room(place) > 0.8 * radius:
                self._keep(
                    "white", paint_cell(self.density, rng, form, place, radius), place, radius
                )
                self.labels.append(label)
                return

    def add_red_cells(self, radius: float, crowding: float) -> None:
        """Red cells wherever there is room, some against and some on each other."""
        rng, stain = self.rng, mix(self.rng, RED_CELLS.stain)
        pallor, blur = rng.uniform(*RED_CELLS.pallor), rng.uniform(*RED_CELLS.blur)
        area = self.width * self.height / (pi * radius**2)
        for _ in range(int(area * (0.4 + 3.5 * crowding))):
            place, size = self._place(-0.8 * radius), radius * rng.normal(1, 0.07)
            overlaps = rng.random() < 0.05 + 0.35 * crowding
            if self._room(place) < size * (rng.uniform(0.35, 0.9) if overlaps else 0.98):
                continue
            box = paint_red_cell(self.density, rng, place, size, stain, pallor, blur)
            self._keep("red", box, place, size)

    def add_platelets(self, number: int) -> None:
        """Platelets on free ground, at times several in a clump."""
        for _ in range(number):
            place = self._place(5)
            for _ in range(draw_count(self.rng, (3, 8)) if self.rng.random() < 0.15 else 1):
                size = self.rng.uniform(8, 17)
                if self._is_free(place) and self._room(place) > 0.9 * size:
                    box = paint_cell(self.density, self.rng, PLATELET, place, size)
                    self._keep("platelet", box, place, size)
                place = place + self.rng.normal(0, 22, 2)

    def add_dirt(self, number: int) -> None:
        """Specks and threads of other colours, which are no cells."""
        for _ in range(number):
            place, size = self._place(0), self.rng.uniform(2, 14)
            turn, length = self.rng.uniform(0, pi), self.rng.uniform(1, 4)
            y, x = np.mgrid[: self.height, : self.width].astype(np.float32)
            x, y = x - place[0], y - place[1]
            along = (x * cos(turn) + y * sin(turn)) / length
            across = y * cos(turn) - x * sin(turn)
            cover = np.clip(1.5 - np.hypot(along, across) / size * 1.5, 0, 1).astype(np.float32)
            colour = np.divide(GROUND, DIRT[self.rng.integers(len(DIRT))])
            dark = np.log10(colour).astype(np.float32) * self.rng.uniform(0.4, 1)
            self.density += cover[..., None] * (dark - self.density)

    def _place(self, margin: float) -> FloatArray:
        """Somewhere on the field, this far from its border; also outside of it if negative."""
        sides = np.array([self.width, self.height], float)
        low, high = np.minimum(margin, sides / 2 - 1), np.maximum(sides - margin, sides / 2 + 1)
        return np.asarray(self.rng.uniform(low, high))

    def _room(self, place: FloatArray) -> float:
        """How far the nearest outline is."""
        if not len(self._sizes):
            return float("inf")
        return float(np.min(np.hypot(*(self._positions - place).T) - self._sizes))

    def _is_free(self, place: FloatArray) -> bool:
        x, y = place.astype(int)
        inside = 0 <= x < self.width and 0 <= y < self.height
        return bool(inside and self.density[y, x].sum() < 0.02)

    def _keep(self, kind: str, box: PaintedBox, place: FloatArray, size: float) -> None:
        self.painted.append((kind, box))
        self._positions = np.vstack([self._positions, place])
        self._sizes = np.append(self._sizes, size)


def _seen(kind: str, box: PaintedBox, zoom: float, width: int, height: int) -> MarkedCell | None:
    """A painted cell's box on the photograph, cut at its border; None where hardly any is seen."""
    x0, y0, x1, y1 = (corner / zoom for corner in box)
    cut = (max(x0, 0), max(y0, 0), min(x1, width), min(y1, height))
    side = max(x1 - x0, y1 - y0)  # windows end at the border, so a cut box may be cut already
    if min(cut[2] - cut[0], cut[3] - cut[1]) < LEAST_SEEN * side:
        return None
    return MarkedCell(kind, *cut)


def _photograph(density: Float32Array, rng: Rng, plain: bool) -> Image.Image:
    """What the camera makes of it: uneven light, noise, focus, JPEG."""
    height, width = density.shape[:2]
    ground = np.array(GROUND, np.float32) + rng.normal(0, 1, 3).astype(np.float32)
    most = 0.015 if plain else 0.15
    slope_x, slope_y, bowl = rng.uniform(-most, most, 3).astype(np.float32)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1 + slope_x * x + slope_y * y - abs(bowl) * (x**2 + y**2) / 2  # (h,w)
    pixels = light[..., None] * ground * np.exp(density * np.float32(-np.log(10)))
    pixels += 3 * rng.standard_normal(pixels.shape, np.float32)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    most_blur = 0.7 if plain else 3.0
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.35, 0.65) ** 2 * most_blur * 2))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=80, subsampling=0)
    return Image.open(encoded).convert("RGB")


def _draw_scale_bar(image: Image.Image, rng: Rng, um_per_pixel: float) -> None:
    """A line of so many micrometres near the lower right corner, with its length beside it."""
    microns = int(rng.choice([5, 10, 20]))
    length = microns / um_per_pixel
    if length > 0.6 * image.width:
        return
    colour = [(60, 230, 60), (20, 20, 20), (250, 250, 250)][rng.integers(3)]
    pen = ImageDraw.Draw(image)
    left, top = image.width * 0.95 - length, image.height * 0.93
    pen.line((left, top, left + length, top), fill=colour, width=1)
    for x in (left, left + length):
        pen.line((x, top - 4, x, top + 4), fill=colour, width=1)
    pen.text((left + length / 3, top - 14), f"{microns}.00 um", fill=colour)
