"""The fields and cells that the page of a count shows, with their images, file by file."""

from __future__ import annotations

import heapq
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from PIL import Image, ImageDraw

from hemascope.bundle.card import Card
from hemascope.decoding import decode
from hemascope.errors import ImageError
from hemascope.reports.render import data_uri
from hemascope.smear.counted import CellPlace, NamedCell, NamedField
from hemascope.smear.reasons import is_outside_frame, reason_without_name
from hemascope.smear.records import Box

FIELDS, CELLS = 40, 60  # fields, and cells of each class; more would make the page too heavy
FIELD_WIDTH, THUMBNAIL = 1000, 96
MARGIN = 1.5  # of a cell's longer side
RED, PLATELET, NO_NAME = "red cell", "platelet", "unidentified"
COLOURS = {RED: "#c0392b", PLATELET: "#5f6b7a", NO_NAME: "#111111"}
QUALITY = 82


@dataclass(frozen=True)
class ShownCell:
    """A cell with its box, to be drawn on a field and in a gallery.

    `key` names it on the page; `group` is its class, RED, PLATELET or NO_NAME. `outside` says that
    it lies outside of the counting frame. `image` is empty for a cell that no gallery shows.
    """

    key: str
    group: str
    box: Box
    title: str
    detail: str
    probability: float
    outside: bool
    path: str
    image: str = ""


@dataclass(frozen=True)
class ShownField:
    """A field with its image and its cells; `key` names it on the page."""

    key: str
    path: str
    width: int
    height: int
    image: str
    cells: tuple[ShownCell, ...]


@dataclass
class Chosen:
    """What is shown of any number of fields: the first ones, and each class's least certain cells.

    `cells` are by group, and `keys` are the names of cells on the page, by where they are.
    """

    fields: list[NamedField] = field(default_factory=list)
    cells: dict[str, list[tuple[float, int, ShownCell]]] = field(default_factory=dict)
    keys: dict[CellPlace, str] = field(default_factory=dict)
    count_unlike: bool = False

    def add(self, found: NamedField) -> None:
        """Takes a field in."""
        white = [cell for cell in found.cells if cell.located.kind == "white"]
        if found.status == "ok" and len(self.fields) < FIELDS and found.cells:
            self.fields.append(found)
        for cell in white:
            shown = self.show(found, cell)
            entry = (-shown.probability, len(self.keys), shown)
            group = self.cells.setdefault(shown.group, [])
            if len(group) < CELLS:
                heapq.heappush(group, entry)
            else:
                heapq.heappushpop(group, entry)  # drops the most certain

    def show(self, found: NamedField, cell: NamedCell) -> ShownCell:
        """A cell as the page shows it, without its image."""
        place = CellPlace(found.path, cell.located.box)
        key = self.keys.setdefault(place, f"c{len(self.keys)}")
        outside = is_outside_frame(cell.located, found.width, found.height)
        prediction, kind = cell.prediction, cell.located.kind
        if kind != "white":
            group, title, detail, probability = _other(kind, cell.located.score)
            return ShownCell(key, group, place.box, title, detail, probability, outside, found.path)
        why = "outside the frame" if outside else reason_without_name(cell, self.count_unlike)
        label = prediction.label if prediction else None
        chance = (prediction.probability if prediction else None) or 0.0
        title = f"{label} {100 * chance:.1f} %" if label else "no name"
        if why:
            return ShownCell(key, NO_NAME, place.box, title, why, chance, outside, found.path)
        assert prediction is not None
        second = prediction.two_likeliest[-1]
        detail = f"then {second} {100 * prediction.probabilities[second]:.1f} %"
        return ShownCell(key, label or "", place.box, title, detail, chance, outside, found.path)


def _other(kind: str, score: float) -> tuple[str, str, str, float]:
    group = RED if kind == "red" else PLATELET
    return group, group, f"score {score:.2f}", score


def choose(fields: Iterable[NamedField], count_unlike: bool = False) -> Chosen:
    """What is shown of these fields, which pass by once."""
    chosen = Chosen(count_unlike=count_unlike)
    for found in fields:
        chosen.add(found)
    return chosen


def show(chosen: Chosen) -> tuple[list[ShownField], list[ShownCell]]:
    """The fields, and the gallery's cells from the least certain, with their images.

    Each file is opened once; what went away since it was counted is left out.
    """
    wanted: dict[str, list[ShownCell]] = {}
    for _, _, cell in itertools.chain.from_iterable(chosen.cells.values()):
        wanted.setdefault(cell.path, []).append(cell)
    by_path = {found.path: found for found in chosen.fields}
    fields: dict[str, ShownField] = {}
    cells: list[ShownCell] = []
    for path in dict.fromkeys([*by_path, *wanted]):
        try:
            image = decode(path)
        except ImageError:
            continue
        cells += [replace(cell, image=_cut(image, cell.box)) for cell in wanted.get(path, ())]
        if path in by_path:
            found = by_path[path]
            boxes = tuple(chosen.show(found, cell) for cell in found.cells)
            fields[path] = ShownField(
                f"f{len(fields)}", path, found.width, found.height, _shrink(image), boxes
            )
    cells.sort(key=lambda cell: (cell.probability, cell.path))
    return list(fields.values()), cells


def _shrink(image: Image.Image) -> str:
    factor = min(1.0, FIELD_WIDTH / image.width)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return _jpeg(image if factor == 1 else image.resize(size, Image.Resampling.LANCZOS))


def _cut(image: Image.Image, box: Box) -> str:
    """A square around a cell, as a thumbnail; beyond the field it is white."""
    x0, y0, x1, y1 = box
    half = MARGIN * max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    part = (round(x - half), round(y - half), round(x + half), round(y + half))
    size = (part[2] - part[0], part[3] - part[1])
    square = Image.new("RGB", size, "white")
    inside = (
        max(part[0], 0),
        max(part[1], 0),
        min(part[2], image.width),
        min(part[3], image.height),
    )
    square.paste(image.crop(inside), (inside[0] - part[0], inside[1] - part[1]))
    return _jpeg(square.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return data_uri(buffer.getvalue(), "jpeg")


def colours_of(card: Card) -> dict[str, str]:
    """The colour of each class and kind on a page."""
    return {each.name: each.colour for each in card.classes} | COLOURS


def draw_overlay(found: NamedField, card: Card, count_unlike: bool = False) -> bytes:
    """A field with the boxes of its cells and the names of its white cells, as a PNG file.

    Raises ImageError where its file went away.
    """
    image, colours = decode(found.path).copy(), colours_of(card)
    pen, width = ImageDraw.Draw(image), max(1, round(image.width / 400))
    chosen = Chosen(count_unlike=count_unlike)
    for cell in sorted(found.cells, key=lambda cell: cell.located.kind != "red"):
        shown = chosen.show(found, cell)
        pen.rectangle(shown.box, outline=colours[shown.group], width=width)
        if cell.located.kind == "white":
            text = shown.group if shown.group != NO_NAME else shown.detail
            place = (shown.box[0] + 2 * width, shown.box[1] + width)
            pen.text(place, text, fill=colours[shown.group])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def overlays(
    fields: Iterable[NamedField], card: Card, count_unlike: bool = False
) -> Iterator[tuple[NamedField, bytes]]:
    """The overlays of the fields that can still be read."""
    for found in fields:
        if found.status != "ok" or found.refused:
            continue
        try:
            yield found, draw_overlay(found, card, count_unlike)
        except ImageError:
            continue  # it went away since it was counted
