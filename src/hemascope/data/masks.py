"""Segmentation masks that lie among the cells, known by their pixels or by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from PIL import Image

from hemascope.wording import fill

MASK_COLOURS = 8  # a mask has one colour for each thing that it marks; a photograph, hundreds
NEAR_EXTREMES = 16  # grey levels from black and white that JPEG leaves around a mask's pixels
MASK_NAME = re.compile(r"(?:^|[ _.-])(?:masks?|segmentations?|ground[ _-]?truth)$", re.IGNORECASE)


def is_mask(image: Image.Image) -> bool:
    """Whether an RGB image has a few colours only, or is black and white but for JPEG's noise."""
    if image.getcolors(MASK_COLOURS) is not None:
        return True
    counts = image.convert("L").histogram()
    black, white = sum(counts[:NEAR_EXTREMES]), sum(counts[-NEAR_EXTREMES:])
    pixels = image.width * image.height
    return min(black, white) > 0.01 * pixels and black + white > 0.95 * pixels


def note_masks(paths: Sequence[str]) -> str:
    """How many images are named as masks are, by a folder or by the name's end; or nothing."""
    named = [
        path
        for path in paths
        if any(MASK_NAME.search(part) for part in PurePosixPath(path).with_suffix("").parts)
    ]
    if not named:
        return ""
    return fill(
        "{n} {n?image is|images are} named like segmentation masks ({first}) and {n?counts|count} "
        "as cells; move them out if they are masks",
        n=len(named),
        first=named[0],
    )


def describe_masks(paths: Sequence[str]) -> str:
    """What to say of images that look like masks and are left out for that."""
    return fill(
        "{n} {n?image looks|images look} like segmentation {n?mask|masks}, not cells, and "
        "{n?is|are} left out ({first}); move them out of the cells' folder",
        n=len(paths),
        first=paths[0],
    )
