"""The fields that a locator learns from, and the crops of them at any scale."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from hemascope.arrays import BoolArray, ImageArray, ProgressCallback
from hemascope.data.marked_fields import (
    ALL_KINDS,
    FIELD_SETS,
    MarkedCell,
    MarkedField,
    read_pbc_centres,
)
from hemascope.data.outlines import find_ground, outline_red_cells
from hemascope.data.public import CHULA, PBC
from hemascope.data.synthetic_fields import draw_field
from hemascope.errors import TrainingError
from hemascope.files import sha256_of
from hemascope.preprocess import decode, ground_colour
from hemascope.training.locator_recipe import LocatorRecipe

DRAWN = "drawn"
CENTRES = "pbc centres"
TOO_NEAR = (3.0, 6.0)  # times the size of cells that are to be found
NEAR = 0.2  # logarithm: how far the scale of most crops is from the network's
STRETCH = 0.08  # logarithm: how far a crop's width and height may be scaled apart
AT_CELLS = 0.5  # share of the crops that are around a white cell or platelet
JPEG_SHARE, JPEG_QUALITY = 0.3, (35, 95)


@dataclass(frozen=True)
class TrainingField:
    """A decoded field (h,w,3) with its marks; `red_diameter` is its red cells', in pixels."""

    image: ImageArray
    cells: tuple[MarkedCell, ...]
    complete: tuple[str, ...]
    ground: BoolArray | None
    colour: tuple[int, int, int]
    red_diameter: float


@dataclass(frozen=True)
class Crop:
    """A piece of a field at the network's scale (S,S,3), its cells, and where surely no cell is."""

    image: ImageArray
    cells: tuple[MarkedCell, ...]
    complete: tuple[str, ...]
    empty: BoolArray


@dataclass(frozen=True)
class LocatorData:
    """Training fields by where they come from, and a hash of all of them."""

    groups: dict[str, tuple[TrainingField, ...]]
    digest: str

    def shares(self, drawn_share: float) -> dict[str, float]:
        """How often crops are taken from each group: by the square root of its fields."""
        weights = {name: len(fields) ** 0.5 for name, fields in self.groups.items()}
        drawn = weights.pop(DRAWN, 0.0)
        total = sum(weights.values())
        if not total:
            return {DRAWN: 1.0}
        real = 1 - drawn_share if drawn else 1.0
        shares = {name: real * weight / total for name, weight in weights.items()}
        return {**shares, DRAWN: drawn_share} if drawn else shares


def load_fields(
    recipe: LocatorRecipe, folder: Path, progress: ProgressCallback | None = None
) -> LocatorData:
    """The training fields of all sets but the one that the recipe leaves out, and the drawn ones.

    Raises TrainingError where the laboratory to leave out is none of the sets.
    """
    if recipe.leave_out and recipe.leave_out not in FIELD_SETS:
        raise TrainingError(
            f"no fields are of '{recipe.leave_out}'; the sets are {', '.join(FIELD_SETS)}"
        )
    marked = {
        name: [field for field in fields.read(folder) if field.split == "train"]
        for name, fields in FIELD_SETS.items()
        if name != recipe.leave_out
    }
    if PBC.name in marked:
        marked[CENTRES] = list(read_pbc_centres(folder))
    total, done, groups = sum(map(len, marked.values())), 0, {}
    hashes = []
    for name, fields in marked.items():
        loaded = []
        for field in fields:
            loaded.append(_load(field))
            hashes.append(sha256_of(loaded[-1].image.tobytes() + repr(field.cells).encode()))
            done += 1
            if progress is not None:
                progress(done, total)
        groups[name] = _fill_diameters(loaded, name)
    if recipe.drawn and recipe.drawn_share:
        groups[DRAWN] = draw_fields(recipe.drawn, recipe.seed)
    return LocatorData(groups, sha256_of("".join(hashes).encode())[:16])


def draw_fields(number: int, seed: int) -> tuple[TrainingField, ...]:
    """Drawn fields to train on."""
    fields = []
    for index in range(number):
        drawn = draw_field(seed * 100_000 + index, 480, 360, red_diameter=45)
        image = np.asarray(drawn.image)
        fields.append(
            TrainingField(image, drawn.cells, ALL_KINDS, None, _colour(drawn.image), 45.0)
        )
    return tuple(fields)


def _load(field: MarkedField) -> TrainingField:
    opened = decode(field.path)
    image = np.asarray(opened)
    if field.laboratory == CHULA.name:
        field = outline_red_cells(field, image)
    whole = [
        cell.diameter
        for cell in field.select("red")
        if not cell.is_point
        and min(cell.x0, cell.y0) > 2
        and cell.x1 < opened.width - 2
        and cell.y1 < opened.height - 2
    ]
    ground = None if set(field.complete) == set(ALL_KINDS) else find_ground(image)
    diameter = median(whole) if len(whole) >= 3 else 0.0
    return TrainingField(image, field.cells, field.complete, ground, _colour(opened), diameter)


def _fill_diameters(fields: Sequence[TrainingField], name: str) -> tuple[TrainingField, ...]:
    """The fields, with the median of the others' red cells where one has too few."""
    known = [field.red_diameter for field in fields if field.red_diameter]
    usual = median(known) if known else 75.0  # of PBC's images, where only middles are marked
    return tuple(replace(f, red_diameter=f.red_diameter or usual) for f in fields)


def _colour(image: Image.Image) -> tuple[int, int, int]:
    red, green, blue = np.rint(ground_colour(image)).astype(int).tolist()
    return red, green, blue


def draw_crops(
    data: LocatorData, recipe: LocatorRecipe, n: int, rng: np.random.Generator
) -> list[Crop]:
    """n crops of fields at random places and scales."""
    shares = data.shares(recipe.drawn_share)
    names = list(shares)
    chosen = rng.choice(len(names), size=n, p=np.array(list(shares.values())))
    crops = []
    for index in chosen:
        fields = data.groups[names[index]]
        crops.append(cut(fields[rng.integers(len(fields))], recipe, rng))
    return crops


def cut(field: TrainingField, recipe: LocatorRecipe, rng: np.random.Generator) -> Crop:
    """A crop of a field, turned and mirrored; what lies past its border is ground."""
    size, is_too_near = recipe.crop, rng.random() < recipe.too_near
    widest = np.log(recipe.scales) if rng.random() < recipe.any_scale else NEAR
    low, high = np.log(TOO_NEAR) if is_too_near else (-widest, widest)
    zoom = recipe.red_diameter / field.red_diameter * np.exp(rng.uniform(low, high))
    zoom_x, zoom_y = zoom * np.exp(rng.uniform(-STRETCH, STRETCH, 2))
    left, top = _corner(field, size / zoom_x, size / zoom_y, rng)
    image, inside = _resample(field, left, top, zoom_x, zoom_y, size)
    empty = np.ones((size, size), bool)
    if field.ground is not None:
        x0, y0, x1, y1 = inside
        source = (left + x0 / zoom_x, top + y0 / zoom_y, left + x1 / zoom_x, top + y1 / zoom_y)
        mask = Image.fromarray(field.ground.view(np.uint8) * 255)
        part = mask.resize((x1 - x0, y1 - y0), Image.Resampling.BOX, box=_within(source, mask))
        empty[y0:y1, x0:x1] = np.asarray(part) > 230
    cells = [
        MarkedCell(
            cell.kind,
            (cell.x0 - left) * zoom_x,
            (cell.y0 - top) * zoom_y,
            (cell.x1 - left) * zoom_x,
            (cell.y1 - top) * zoom_y,
        )
        for cell in field.cells
    ]
    if recipe.faded and rng.random() < recipe.faded:
        image = fade_cytoplasm(image, cells, field.colour, rng)
    if rng.random() < JPEG_SHARE:
        image = _save_as_jpeg(image, int(rng.integers(*JPEG_QUALITY)))
    if is_too_near:
        return Crop(image, (), ALL_KINDS, empty)
    return _turn(Crop(image, tuple(cells), field.complete, empty), rng)


def fade_cytoplasm(
    image: ImageArray,
    cells: Sequence[MarkedCell],
    ground: tuple[int, int, int],
    rng: np.random.Generator,
) -> ImageArray:
    """A crop (S,S,3) whose white cells have paler cytoplasm between their dark nuclei.

    In some smears it is hardly to be told from the ground, and the lobes of a nucleus pass for
    cells. What is less dense than a random share of the densest tenth of a cell is thinned.
    """
    light = np.array(ground, dtype=np.float64) + 1
    density = np.log(light / (image.astype(np.float64) + 1))
    rows, columns = np.indices(image.shape[:2])
    for cell in cells:
        if cell.kind != "white" or cell.is_point:
            continue
        (x, y), half_x, half_y = cell.centre, (cell.x1 - cell.x0) / 2, (cell.y1 - cell.y0) / 2
        inside = ((columns - x) / half_x) ** 2 + ((rows - y) / half_y) ** 2 < 1
        share, left = rng.uniform(0.3, 0.6), rng.uniform(0.05, 0.6)
        if not inside.any():
            continue
        dense = density[inside].mean(axis=1)
        nucleus = max(float(np.quantile(dense, 0.9)), 1e-3)
        kept = np.clip((dense / nucleus - share) / 0.2, 0, 1)
        density[inside] *= (kept + (1 - kept) * left)[:, None]
    faded = np.exp(-density) * light - 1
    return np.asarray(np.clip(np.rint(faded), 0, 255), dtype=np.uint8)


def _corner(
    field: TrainingField, width: float, height: float, rng: np.random.Generator
) -> tuple[float, float]:
    """The upper left corner of a crop's window, in the field's pixels; it may lie outside."""
    rows, columns = field.image.shape[:2]
    rare = [cell for cell in field.cells if cell.kind != "red"]
    if rare and rng.random() < AT_CELLS:
        x, y = rare[rng.integers(len(rare))].centre
        x, y = x + rng.uniform(-0.45, 0.45) * width, y + rng.uniform(-0.45, 0.45) * height
    else:
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
    # A window lies wholly on the field where it fits, but for a fifth of its side.
    slack_x, slack_y = 0.2 * width * rng.uniform(-1, 1), 0.2 * height * rng.uniform(-1, 1)
    x = np.clip(x, min(width, columns) / 2, columns - min(width, columns) / 2) + slack_x
    y = np.clip(y, min(height, rows) / 2, rows - min(height, rows) / 2) + slack_y
    return float(x - width / 2), float(y - height / 2)


def _resample(
    field: TrainingField, left: float, top: float, zoom_x: float, zoom_y: float, size: int
) -> tuple[ImageArray, tuple[int, int, int, int]]:
    """A window of a field as (S,S,3), and the part of it that is not past the border."""
    rows, columns = field.image.shape[:2]
    x0, y0 = max(0, round(-left * zoom_x)), max(0, round(-top * zoom_y))
    x1 = min(size, round((columns - left) * zoom_x))
    y1 = min(size, round((rows - top) * zoom_y))
    opened = Image.fromarray(field.image)
    source = (left + x0 / zoom_x, top + y0 / zoom_y, left + x1 / zoom_x, top + y1 / zoom_y)
    part = opened.resize(
        (x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=_within(source, opened), reducing_gap=2.0
    )
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = field.colour
    canvas[y0:y1, x0:x1] = np.asarray(part)
    return canvas, (x0, y0, x1, y1)


def _within(
    box: tuple[float, float, float, float], image: Image.Image
) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return max(0.0, x0), max(0.0, y0), min(float(image.width), x1), min(float(image.height), y1)


def _turn(crop: Crop, rng: np.random.Generator) -> Crop:
    """The crop in one of the eight symmetries of the square."""
    size, image, empty = len(crop.image), crop.image, crop.empty
    boxes = np.array([cell.box for cell in crop.cells], float).reshape(-1, 4)
    if rng.random() < 0.5:
        image, empty, boxes = image[:, ::-1], empty[:, ::-1], size - boxes[:, [2, 1, 0, 3]]
        boxes[:, [1, 3]] = size - boxes[:, [1, 3]]
    if rng.random() < 0.5:
        image, empty, boxes = image[::-1], empty[::-1], size - boxes[:, [0, 3, 2, 1]]
        boxes[:, [0, 2]] = size - boxes[:, [0, 2]]
    if rng.random() < 0.5:
        image, empty, boxes = image.transpose(1, 0, 2), empty.T, boxes[:, [1, 0, 3, 2]]
    cells = [
        MarkedCell(cell.kind, *box) for cell, box in zip(crop.cells, boxes.tolist(), strict=True)
    ]
    return Crop(np.ascontiguousarray(image), tuple(cells), crop.complete, empty)


def _save_as_jpeg(image: ImageArray, quality: int) -> ImageArray:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "JPEG", quality=quality)
    return np.asarray(Image.open(encoded))
