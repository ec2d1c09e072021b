"""Boxes around cells in Pascal VOC annotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from hemascope.errors import ManifestError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Box:
    """A box around a cell, in pixels; `right` and `bottom` are its last ones."""

    name: str
    left: int
    top: int
    right: int
    bottom: int

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box (x, y), in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def diameter(self) -> float:
        """Of the circle that is as large as the ellipse in the box."""
        return float(((self.right - self.left) * (self.bottom - self.top)) ** 0.5)


@dataclass(frozen=True)
class Field:
    """A smear field's size in pixels and the boxes in it."""

    width: int
    height: int
    boxes: tuple[Box, ...]

    def is_whole_red_cell(self, box: Box) -> bool:
        """Whether a box holds a red cell that does not touch the border."""
        touches = box.left <= 1 or box.top <= 1
        touches |= box.right >= self.width - 1 or box.bottom >= self.height - 1
        return box.name == "RBC" and not touches and box.diameter > 0


def read_field(path: Path) -> Field:
    """A Pascal VOC annotation. Raises ManifestError for anything else."""
    try:
        root = ElementTree.parse(path).getroot()
        boxes = [
            Box(_text(o, "name"), *(int(_text(o, f"bndbox/{k}")) for k in CORNERS))
            for o in root.iter("object")
        ]
        width, height = (int(_text(root, f"size/{side}")) for side in ("width", "height"))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise ManifestError(f"{path}: not a Pascal VOC annotation: {error}") from None
    return Field(width, height, tuple(boxes))


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"no {path}")
    return text
