"""TIFF files → RGB: which of several pages is the picture, and which are its colours."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import IO

import numpy as np
from PIL import Image, TiffImagePlugin

from hemascope.decoding import optional
from hemascope.decoding.colour import to_rgb
from hemascope.decoding.limits import Reserve, max_pixels
from hemascope.decoding.pixels import image_from, refuse_dark
from hemascope.decoding.tiff import (
    METAMORPH_PLANES,
    PALETTE,
    RGB,
    SUB_DIRECTORIES,
    Page,
)
from hemascope.decoding.tiff_header import check_segments, hide_metadata, read_pages
from hemascope.errors import ImageError

BLANK = 8  # levels: a page whose channels span no more shows nothing
LARGER = 2.0  # times the pixels of every other page: what makes a page the picture
MOST_PAGES = 16  # that are looked at to find the picture
OME_COLOURS = {0xFF0000FF: 0, 0x00FF00FF: 1, 0x0000FFFF: 2}


def read_tiff(file: IO[bytes], reserve: Reserve, index: int = 0) -> tuple[Image.Image, str]:
    """The picture in a TIFF as upright RGB, and which page it is if there are several.

    An `index` above 0 chooses the page. Raises ImageError where no page is more than the others
    the picture, and as reading it does.
    """
    pages = read_pages(file)
    if not pages or index >= len(pages):
        raise ImageError("damaged image: its TIFF header has no pages")
    if index:
        return _read_one(file, pages[index], reserve), ""
    pictures = [page for page in pages if not page.auxiliary]
    if not pictures and any(SUB_DIRECTORIES in page.places for page in pages):
        raise ImageError("a camera's raw file: save it as a TIFF or PNG")
    pictures = pictures or pages
    order = _colour_order(pictures)
    if order is not None:
        colours = [pictures[place] for place in order]
        return _read_colours(file, colours, reserve), _said(colours, pages)
    _refuse_stacks(pictures)
    if len(pictures) == 1:
        page = pictures[0]
        return _read_one(file, page, reserve), _said([page], pages) if len(pages) > 1 else ""
    if sum(page.width * page.height for page in pictures) > max_pixels():
        raise ImageError(f"{len(pictures)} pages, too large to look for the picture among them")
    for page in pictures:
        page.check()
    reserve(max(_cost(file, page) for page in pictures))
    page = _choose(file, pictures)
    return _read_page(file, page), _said([page], pages)


def _read_one(file: IO[bytes], page: Page, reserve: Reserve) -> Image.Image:
    page.check()
    reserve(_cost(file, page))
    return _read_page(file, page)


def _said(chosen: Sequence[Page], pages: Sequence[Page]) -> str:
    numbers = " and ".join(str(page.index + 1) for page in chosen)
    if len(chosen) > 1:
        return f"pages {numbers.replace(' and', ',', len(chosen) - 2)} were read as its colours"
    return f"page {numbers} of {len(pages)} was read"


def _choose(file: IO[bytes], pictures: list[Page]) -> Page:
    """The page that is not blank, or larger than all others that are not."""
    shown = [page for page in pictures if not _is_blank(_read_page(file, page))]
    shown.sort(key=lambda page: page.width * page.height, reverse=True)
    sizes = [page.width * page.height for page in shown]
    if not shown:
        raise ImageError(f"{len(pictures)} pages, all of them blank")
    if len(shown) > 1 and sizes[0] < LARGER * sizes[1]:
        raise ImageError(_several(len(pictures)))
    return shown[0]


def _several(pages: int) -> str:
    return f"{pages} pages, and nothing says which is the picture; save that one as a file"


def _is_blank(image: Image.Image) -> bool:
    return all(high - low <= BLANK for low, high in image.getextrema())  # type: ignore[misc]


def _refuse_stacks(pictures: Sequence[Page]) -> None:
    """Raises ImageError for the planes of a focus stack, a time series or a set of stains."""
    first = pictures[0]
    planes = max(
        len(pictures) if len({page.shape for page in pictures}) == 1 else 1,
        first.number(METAMORPH_PLANES),
        int(_imagej(first.description, "images") or 1),
    )
    grey = all(page.samples == 1 for page in pictures)
    if len(pictures) > MOST_PAGES or (planes > len(pictures)):
        raise ImageError(_several(max(planes, len(pictures))))
    if planes == 3 and grey:
        raise ImageError(
            "3 grey pages of one size, and nothing says whether they are red, green and blue; "
            "save it as an RGB image"
        )


def _imagej(description: str, key: str) -> str | None:
    found = re.search(rf"^{key}=(.*)$", description, re.M)
    return found[1].strip() if found and description.startswith("ImageJ=") else None


def _colour_order(pictures: Sequence[Page]) -> tuple[int, ...] | None:
    """Places of red, green and blue among three grey pages; None if they are not colours."""
    first = pictures[0]
    if len(pictures) != 3 or len({page.shape for page in pictures}) > 1 or first.samples != 1:
        return None
    if first.description.startswith("ImageJ="):
        labels = first.tags.get(50839, b"").replace(b"\0", b"")
        if _imagej(first.description, "channels") == "3" or b"RedGreenBlue" in labels:
            return (0, 1, 2)
        return None
    pixels = re.search(r"<(?:\w+:)?Pixels\b.*?(?:</(?:\w+:)?Pixels>|\Z)", first.description, re.S)
    if pixels is None or 'SizeC="3"' not in pixels[0]:
        return None
    return _ome_order(pixels[0])


def _ome_order(pixels: str) -> tuple[int, ...]:
    """The same from OME's description, by the colours or the names of its channels."""
    channels = re.findall(r"<(?:\w+:)?Channel\b[^>]*>", pixels)
    found = [re.search(r'\bColor="(-?\d+)"', channel) for channel in channels]
    colours = [int(colour[1]) & 0xFFFFFFFF for colour in found if colour]
    names = [re.search(r'\bName="(\w)', channel) for channel in channels]
    initials = [name[1].lower() for name in names if name]
    if len(colours) == 3 and len(set(colours)) > 1:
        places = [OME_COLOURS.get(colour, -1) for colour in colours]
    elif sorted(initials) == ["b", "g", "r"]:
        places = ["rgb".index(initial) for initial in initials]
    else:
        places = [0, 1, 2]
    if sorted(places) != [0, 1, 2]:
        raise ImageError("three channels that are not red, green and blue; save it as an RGB image")
    return tuple(places.index(colour) for colour in range(3))


def _cost(file: IO[bytes], page: Page) -> int:
    """The bytes that decoding it takes, by the measured peaks of each kind."""
    pixels, size = page.width * page.height, max(1, page.bits // 8)
    if not page.pillow_reads_right():
        return pixels * (page.samples * size * 3 + page.samples + 8)
    stored = _stored_bytes(file, page)
    if page.samples == 1 and page.bits > 8:
        return pixels * (4 * size + 6) + stored
    turned = 4 if page.orientation > 1 else 0
    deep = 1 if page.bits > 8 else 0
    each = {1: 5, 3: 4}.get(page.samples, 17) + turned + deep
    return pixels * each + _segment_bytes(page) + stored


def _stored_bytes(file: IO[bytes], page: Page) -> int:
    """Of the file, which libtiff maps into memory; strips may be the same bytes."""
    segments = check_segments(file, page)
    return min(sum(length for _, length in segments), file.seek(0, io.SEEK_END))


def _segment_bytes(page: Page) -> int:
    """Of one strip or tile, of which one is decoded at a time."""
    columns, rows = page.first(322, page.width), page.first(323, page.first(278, page.height))
    size = min(columns, page.width) * min(rows, page.height)
    return 0 if page.compression == 1 else size * page.samples * max(1, page.bits // 8)


def _read_page(file: IO[bytes], page: Page) -> Image.Image:
    if not page.pillow_reads_right():
        return to_rgb(optional.read_tiff_page(file, page), page.orientation)
    try:
        image = _load(file, page)
    except ImageError:
        raise
    except Exception:  # what Pillow makes of EXIF and the like must not cost the image
        file.seek(0)
        image = _load(io.BytesIO(hide_metadata(file.read())), page)
    if page.bits == 16 and page.photometric == RGB:
        refuse_dark(image)
    inverted = page.min_is_white and page.bits > 8
    return to_rgb(image, bits=page.used_bits, min_is_white=inverted)


def _load(file: IO[bytes], page: Page) -> Image.Image:
    """The page as Pillow reads it, already upright."""
    check_segments(file, page)
    file.seek(0)
    image = TiffImagePlugin.TiffImageFile(file)
    image.seek(page.index)
    image.load()
    if page.photometric == PALETTE:
        colours = image.tag_v2.get(320, ())
        if 0 < max(colours, default=0) < 256:  # written with 8 bits, against the standard
            image.putpalette(bytes(np.reshape(colours, (3, -1)).T.ravel().tolist()))
    return image


def _read_colours(file: IO[bytes], pages: Sequence[Page], reserve: Reserve) -> Image.Image:
    for page in pages:
        page.check()
    reserve(2 * _cost(file, pages[0]) + 12 * pages[0].width * pages[0].height)
    if not all(page.pillow_reads_right() for page in pages):
        planes = [np.asarray(optional.read_tiff_page(file, page)) for page in pages]
        return to_rgb(image_from(np.dstack(planes)), pages[0].orientation)
    planes = [np.asarray(_load(file, page)) for page in pages]
    inverted = pages[0].min_is_white and pages[0].bits > 8
    return to_rgb(image_from(np.dstack(planes), pages[0].used_bits, inverted))
