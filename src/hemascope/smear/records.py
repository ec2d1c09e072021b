"""What is found on a smear field: frozen dataclasses, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Box: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels from the upper left corner of the upright image."""

Kind: TypeAlias = Literal["white", "red", "platelet"]
KINDS: tuple[Kind, ...] = ("white", "red", "platelet")


@dataclass(frozen=True)
class LocatedCell:
    """A cell on a field: what it is, where, and how sure that is.

    `white` stands for every nucleated cell, erythroblasts among them. `score` is from 0 to 1.
    `at_border` says that the cell touches the border of the field, and may be cut off there.

    Examples
    --------
    >>> from hemascope.smear.records import LocatedCell
    >>> LocatedCell("red", (10.0, 20.0, 40.0, 52.0), 0.9, at_border=False).centre
    (25.0, 36.0)
    """

    kind: Kind
    box: Box
    score: float
    at_border: bool

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box (x, y), in pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def diameter(self) -> float:
        """Of the circle that is as large as the ellipse in the box, in pixels."""
        x0, y0, x1, y1 = self.box
        return float(((x1 - x0) * (y1 - y0)) ** 0.5)


@dataclass(frozen=True)
class Scale:
    """How many micrometres a pixel is wide, from n red cells, with its 95 % interval."""

    um_per_pixel: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class LocatedField:
    """One field's cells and scale.

    `scale` is None where the red cells do not tell it, and `scale_note` says why in a sentence; it
    is empty where there is nothing to say. `width` and `height` are of the upright image. `status`
    is "ok", or what is wrong with a file that could not be read, which has no cells.
    """

    path: str
    width: int
    height: int
    cells: tuple[LocatedCell, ...]
    scale: Scale | None
    scale_note: str
    status: str = "ok"

    def select(self, kind: Kind) -> tuple[LocatedCell, ...]:
        """The cells of one kind, in the order they have in `cells`."""
        return tuple(cell for cell in self.cells if cell.kind == kind)
