"""cut_cells: fields → a view of each white cell and platelet on them, at its scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hemascope.arrays import ProgressCallback
from hemascope.preprocess import View
from hemascope.smear.locate import Locator


@dataclass(frozen=True)
class CutCells:
    """Views of cells, and how many fields gave none: for want of a scale, or unreadable."""

    views: tuple[View, ...]
    without_scale: int = 0
    unreadable: int = 0


def cut_cells(
    locator: Locator, paths: Sequence[str], progress: ProgressCallback | None = None
) -> CutCells:
    """The white cells and platelets of fields that do not touch the border.

    Red cells, which are a hundred to one, are left out: they are none of what is to be named.
    """
    views: list[View] = []
    without_scale = unreadable = 0
    for number, field in enumerate(locator.stream(paths), 1):
        if field.status != "ok":
            unreadable += 1
        elif field.scale is None:
            without_scale += 1
        else:
            views += [
                View(field.path, field.scale.um_per_pixel, cell.centre)
                for cell in (*field.select("white"), *field.select("platelet"))
                if not cell.at_border
            ]
        if progress is not None:
            progress(number, len(paths))
    return CutCells(tuple(views), without_scale, unreadable)
