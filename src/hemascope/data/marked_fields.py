"""FIELD_SETS: smear fields whose cells are marked, with boxes or as points, one reader per set.

Every field belongs to `train` or `test` by a hash of its file's name, but for those of PBC, which
keep the split that they have in pbc/splits.csv: nothing is trained on its test split.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hemascope.data.pascal_voc import read_field
from hemascope.data.public import BCCD, CHULA, DRAASLAN, PBC, Source
from hemascope.errors import ManifestError
from hemascope.files import sha256_of

KINDS = {"WBC": "white", "RBC": "red", "Platelets": "platelet"}
ALL_KINDS = ("white", "red", "platelet")
DRAWN_TWICE = 0.8  # intersection over union from which on two boxes are of one cell
NUCLEATED = ("erythroblast", "ig")  # PBC's classes of single cells that its boxes leave out


@dataclass(frozen=True)
class MarkedCell:
    """A cell that somebody marked: its kind, and its box in pixels; a point is a box without size.

    Examples
    --------
    >>> from hemascope.data.marked_fields import MarkedCell
    >>> MarkedCell("red", 10, 10, 40, 50).centre
    (25.0, 30.0)
    """

    kind: str
    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def is_point(self) -> bool:
        """Whether only the cell's place is known."""
        return self.x0 == self.x1 or self.y0 == self.y1

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box (x, y)."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def diameter(self) -> float:
        """Of the circle that is as large as the ellipse in the box."""
        return float(((self.x1 - self.x0) * (self.y1 - self.y0)) ** 0.5)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1."""
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True)
class MarkedField:
    """A field's image and the cells that are marked in it.

    `complete` names the kinds all of whose cells are marked: elsewhere there is none of them.
    `split` is `train` or `test`.
    """

    path: Path
    laboratory: str
    split: str
    cells: tuple[MarkedCell, ...]
    complete: tuple[str, ...] = ALL_KINDS

    def select(self, kind: str) -> tuple[MarkedCell, ...]:
        """The cells of one kind."""
        return tuple(cell for cell in self.cells if cell.kind == kind)


@dataclass(frozen=True)
class FieldSet:
    """A public set of fields, and the reader of its files in the folder of all data."""

    source: Source
    read: Callable[[Path], tuple[MarkedField, ...]]


def split_of(name: str, tested: float) -> str:
    """`test` for a share `tested` of all names, by their hash; `train` for the others."""
    part = int(sha256_of(name.encode())[:8], 16) / 2**32
    return "test" if part < tested else "train"


def read_bccd_boxes(folder: Path) -> tuple[MarkedField, ...]:
    """All 364 fields of BCCD, split 4:1.

    Those in fields/bccd_boxes.csv have new boxes of all kinds. The others keep the boxes they were
    published with, which leave out more than half of the red cells, and are for training only.
    """
    images = folder / "bccd" / "JPEGImages"
    new = _read_boxes(folder / "fields" / "bccd_boxes.csv", "field")
    fields = []
    for path in sorted(images.glob("*.jpg")):
        split = split_of(path.name, 0.2)
        if path.name in new:
            fields.append(MarkedField(path, BCCD.name, split, new[path.name]))
        elif split == "train":
            old = read_field(folder / "bccd" / "Annotations" / f"{path.stem}.xml")
            cells = tuple(
                MarkedCell(KINDS[b.name], b.left, b.top, b.right, b.bottom)
                for b in old.boxes
                if b.right > b.left and b.bottom > b.top
            )
            fields.append(MarkedField(path, BCCD.name, split, cells, ("white", "platelet")))
    return tuple(fields)


def read_pbc_boxes(folder: Path) -> tuple[MarkedField, ...]:
    """307 images of PBC with boxes, which keep their split there (`pool` is for training)."""
    splits = {row["path"]: row["split"] for row in _read(folder / "pbc" / "splits.csv")}
    boxes = _read_boxes(folder / "fields" / "pbc_boxes.csv", "path")
    return tuple(
        MarkedField(folder / "pbc" / path, PBC.name, _pbc_split(splits[path]), boxes[path])
        for path in sorted(boxes)
    )


def read_pbc_centres(folder: Path, per_class: int = 100) -> tuple[MarkedField, ...]:
    """Images of one nucleated cell or platelet of PBC, which lies in the middle: a point each.

    They are of the classes that its boxes leave out, from its train split.
    """
    fields = []
    taken: dict[str, int] = defaultdict(int)
    for row in _read(folder / "pbc" / "splits.csv"):
        label = row["label"]
        if row["split"] != "train" or label not in (*NUCLEATED, "platelet"):
            continue
        taken[label] += 1
        if taken[label] <= per_class:
            kind = "white" if label in NUCLEATED else "platelet"
            middle = MarkedCell(kind, 180, 180, 180, 180)
            path = folder / "pbc" / row["path"]
            fields.append(MarkedField(path, PBC.name, "train", (middle,), ()))
    return tuple(fields)


def read_draaslan(folder: Path) -> tuple[MarkedField, ...]:
    """100 fields of another microscope, split 4:1. Its few platelets are hardly ever marked."""
    boxes = _read_boxes(folder / "fields" / "draaslan" / "boxes.csv", "field")
    images = folder / "fields" / "draaslan" / "images"
    return tuple(
        MarkedField(
            images / name, DRAASLAN.name, split_of(name, 0.2), boxes[name], ("white", "red")
        )
        for name in sorted(boxes)
    )


def read_chula(folder: Path) -> tuple[MarkedField, ...]:
    """109 fields with points on red cells, often on some only, split 1:1."""
    points: dict[str, list[MarkedCell]] = defaultdict(list)
    for row in _read(folder / "fields" / "chula" / "cells.csv"):
        x, y = float(row["x"]), float(row["y"])
        points[row["field"]].append(MarkedCell("red", x, y, x, y))
    images = folder / "fields" / "chula" / "images"
    return tuple(
        MarkedField(images / name, CHULA.name, split_of(name, 0.5), tuple(points[name]), ())
        for name in sorted(points)
    )


def _pbc_split(split: str) -> str:
    return "test" if split == "test" else "train"


def _read_boxes(path: Path, key: str) -> dict[str, tuple[MarkedCell, ...]]:
    """A table of boxes by the field they are in, without those that are drawn a second time."""
    boxes: dict[str, list[MarkedCell]] = defaultdict(list)
    for row in _read(path):
        corners = [float(row[name]) for name in ("x0", "y0", "x1", "y1")]
        cell = MarkedCell(KINDS[row["class"]], *corners)
        if not any(_is_same(cell, other) for other in boxes[row[key]]):
            boxes[row[key]].append(cell)
    return {name: tuple(cells) for name, cells in boxes.items()}


def _is_same(cell: MarkedCell, other: MarkedCell) -> bool:
    """Whether two boxes of a kind are hardly apart: somebody drew one cell twice."""
    if cell.kind != other.kind:
        return False
    width = min(cell.x1, other.x1) - max(cell.x0, other.x0)
    height = min(cell.y1, other.y1) - max(cell.y0, other.y0)
    shared = max(0.0, width) * max(0.0, height)
    return shared > DRAWN_TWICE * (cell.diameter**2 + other.diameter**2 - shared)


def _read(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file. Raises ManifestError where it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None


FIELD_SETS: dict[str, FieldSet] = {
    BCCD.name: FieldSet(BCCD, read_bccd_boxes),
    PBC.name: FieldSet(PBC, read_pbc_boxes),
    DRAASLAN.name: FieldSet(DRAASLAN, read_draaslan),
    CHULA.name: FieldSet(CHULA, read_chula),
}
