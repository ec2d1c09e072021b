"""SmallImages: cells as the galleries show them; of a field that is read, all are made."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image

from hemascope.serve.app.pictures import to_png
from hemascope.smear.counted import NamedField
from hemascope.smear.records import Box

THUMBNAIL, MARGIN = 96, 1.5
BEYOND = (160, 160, 160)  # the border of the field
MOST_BYTES = 256 * 1024 * 1024
PIXELS = 3 * THUMBNAIL**2  # bytes


class SmallImages:
    """Small images by the field's SHA-256 and the cell's box; the latest that were asked for.

    Those of a field that was just imported are prepared in the background. Of any other field, the
    first that is asked for is answered at once, and the others of the field follow in the
    background, so that a field is decoded twice and not once per cell. `read` decodes a field.
    """

    def __init__(self, read: Callable[[str], Image.Image], most_bytes: int = MOST_BYTES) -> None:
        self._read, self._most = read, most_bytes
        self._kept: OrderedDict[tuple[str, Box], Image.Image | bytes] = OrderedDict()
        self._bytes = 0
        self._ahead: set[str] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="small images")

    def draw(self, sha256: str, field: NamedField, box: Box) -> bytes:
        """The small image of a cell of this field, as PNG."""
        key = (sha256, box)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if isinstance(found, bytes):
            return found
        made = to_png(found or draw_cell(self._read(sha256), box, THUMBNAIL))
        self._keep(key, made)
        if found is None:
            self._go_on(sha256, field)
        return made

    def prepare(self, sha256: str, field: NamedField) -> Future[None]:
        """Makes those of a field in the background, compressed, before anybody asks for them."""
        return self._pool.submit(self._draw_all, sha256, field, to_png)

    def close(self) -> None:
        """Makes no more in the background."""
        self._pool.shutdown(cancel_futures=True)

    def _go_on(self, sha256: str, field: NamedField) -> None:
        with self._lock:
            if sha256 in self._ahead:
                return
            self._ahead.add(sha256)
        self._pool.submit(self._draw_all, sha256, field, _as_it_is)

    def _draw_all(
        self, sha256: str, field: NamedField, kept_as: Callable[[Image.Image], Image.Image | bytes]
    ) -> None:
        """Makes those of the white cells of a field; no other cells are in the galleries."""
        try:
            image = self._read(sha256)
            for cell in field.cells:
                key = (sha256, cell.located.box)
                if cell.located.kind == "white" and key not in self._kept:
                    self._keep(key, kept_as(draw_cell(image, cell.located.box, THUMBNAIL)))
        finally:
            with self._lock:
                self._ahead.discard(sha256)

    def _keep(self, key: tuple[str, Box], made: Image.Image | bytes) -> None:
        with self._lock:
            self._bytes += _size(made) - _size(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._most:
                self._bytes -= _size(self._kept.popitem(last=False)[1])


def draw_cell(image: Image.Image, box: Box, size: int) -> Image.Image:
    """A cell of a field with what is round it, as a square of so many pixels."""
    x0, y0, x1, y1 = box
    half = MARGIN * max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    side = max(1, round(2 * half))
    part = Image.new("RGB", (side, side), BEYOND)
    part.paste(image, (round(half - x), round(half - y)))
    return part.resize((size, size), Image.Resampling.BICUBIC)


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def _size(made: Image.Image | bytes) -> int:
    return len(made) if isinstance(made, bytes) else PIXELS
