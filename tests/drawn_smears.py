"""Drawn samples on the disk, and a locator that knows what was drawn."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from PIL import Image

from hemascope.data.synthetic_fields import DrawnField, draw_field
from hemascope.smear.records import Kind, LocatedCell, LocatedField
from hemascope.smear.scale import measure_scale

WIDTH, HEIGHT, RED = 560, 420, 71.0


class KnownLocator:
    """Finds the cells of drawn fields by their pixels, and none on other images."""

    def __init__(self) -> None:
        self.card = SimpleNamespace(model_sha256="1" * 64)
        self.fields: dict[str, tuple[LocatedCell, ...]] = {}
        self.looks = 0

    def learn(self, image: Image.Image, cells: tuple[LocatedCell, ...]) -> None:
        """Keeps where the cells of an image are."""
        self.fields[_key(image)] = cells

    def locate(
        self, image: Image.Image, um_per_pixel: float | None = None, path: str = ""
    ) -> LocatedField:
        """The cells that were drawn, and the scale that their red cells tell."""
        self.looks += 1
        cells = self.fields.get(_key(image), ())
        scale, note = measure_scale(cells)
        return LocatedField(path, *image.size, cells, scale, note)


def _key(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def cells_of(drawn: DrawnField) -> tuple[LocatedCell, ...]:
    """The drawn cells as a locator gives them."""
    width, height = drawn.image.size
    return tuple(
        LocatedCell(
            cast(Kind, cell.kind),
            (cell.x0, cell.y0, cell.x1, cell.y1),
            0.9,
            min(cell.x0, cell.y0, width - cell.x1, height - cell.y1) < 1,
        )
        for cell in drawn.cells
    )


@cache
def _draw(seed: int, red: float) -> DrawnField:
    return draw_field(seed, WIDTH, HEIGHT, red, white=2, crowding=0.2, plain=True)


def draw_sample(
    folder: Path, locator: KnownLocator, fields: int, seed: int = 0, red: float = RED
) -> list[DrawnField]:
    """Draws fields into a folder, and tells the locator."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for number in range(fields):
        field = _draw(seed + number, red)
        field.image.save(folder / f"{number:03d}.png")
        locator.learn(field.image, cells_of(field))
        drawn.append(field)
    return drawn
