"""Whether images that were given as single cells are fields of many cells."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from PIL import Image

from hemascope.errors import ImageError
from hemascope.smear.naming import FieldLocator, is_single, locate_file

LOOKED_AT, LEAST = 6, 0.8
ELONGATED, LARGE = 1.2, 420  # images of single cells are nearly square, and small
RED_CELLS = 5  # whole ones, of which an image of a single cell has a few
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
FIELDS = (
    "these images look like fields of many cells, and only the middle of each was classified; "
    "'hemascope count' finds the cells on fields, names them and counts them"
)


def note_fields(paths: Sequence[str], find_locator: Callable[[], FieldLocator]) -> str:
    """A sentence where the images look like fields; empty otherwise.

    A few are looked at, and only those that are larger or longer than images of single cells are;
    the locator is asked for where there is one.
    """
    step = max(1, len(paths) // LOOKED_AT)
    chosen = paths[::step][:LOOKED_AT]
    candidates = [path for path in chosen if _may_be_field(path)]
    if not candidates or len(candidates) < LEAST * len(chosen):
        return ""
    locator, fields = find_locator(), 0
    for path in candidates:
        try:
            found = locate_file(path, locator)
        except ImageError:
            continue
        red = sum(cell.kind == "red" and not cell.at_border for cell in found.cells)
        fields += red >= RED_CELLS and not is_single(found)
    return FIELDS if fields >= LEAST * len(chosen) else ""


def _may_be_field(path: str) -> bool:
    """By the size that the file's header says."""
    if not os.path.isfile(path):
        return False  # a pipe would wait for ever
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Exception:  # readers of headers raise nearly anything for damaged files
        return False
    return max(width, height) > ELONGATED * min(width, height) or min(width, height) > LARGE
