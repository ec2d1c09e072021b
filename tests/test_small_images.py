"""Small images of cells: alike however they come, few reads of their fields, and bounded memory."""

from __future__ import annotations

import io
import time
from collections import Counter
from dataclasses import replace

import numpy as np
from PIL import Image

from hemascope.serve.pages.small import BEYOND, THUMBNAIL, SmallImages, draw_cell
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.records import LocatedCell

RANDOM = np.random.default_rng(0)
IMAGE = Image.fromarray(RANDOM.integers(0, 255, (300, 400, 3), dtype=np.uint8))
BOXES = [(float(x), 50.0, float(x) + 60, 110.0) for x in range(0, 300, 10)]
CELLS = tuple(NamedCell(LocatedCell("white", box, 0.9, at_border=False)) for box in BOXES)
FIELD = NamedField("sample", "field.png", width=400, height=300, cells=CELLS)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_all_cells_of_a_field_take_two_reads_of_it() -> None:
    reads: Counter[str] = Counter()

    def read(sha256: str) -> Image.Image:
        reads[sha256] += 1
        return IMAGE

    small = SmallImages(read)
    first = small.draw("a", FIELD, BOXES[0])
    for _ in range(200):
        if len(small._kept) == len(BOXES):
            break
        time.sleep(0.02)
    for box in BOXES:
        expected = np.asarray(draw_cell(IMAGE, box, THUMBNAIL))
        assert np.array_equal(pixels(small.draw("a", FIELD, box)), expected)
    assert small.draw("a", FIELD, BOXES[0]) is first
    assert reads == {"a": 2}
    small.close()


def test_those_of_an_imported_field_are_prepared() -> None:
    reads: list[str] = []

    def read(sha256: str) -> Image.Image:
        reads.append(sha256)
        return IMAGE

    red = NamedCell(LocatedCell("red", (0.0, 0.0, 40.0, 40.0), 0.9, at_border=False))
    small = SmallImages(read)
    small.prepare("a", replace(FIELD, cells=(*CELLS, red))).result()
    assert len(small._kept) == len(BOXES)
    for box in BOXES:
        expected = np.asarray(draw_cell(IMAGE, box, THUMBNAIL))
        assert np.array_equal(pixels(small.draw("a", FIELD, box)), expected)
    assert reads == ["a"]
    small.close()


def test_no_more_is_kept_than_allowed() -> None:
    most = 200_000
    small = SmallImages(lambda _: IMAGE, most)
    for name in "abc":
        for box in BOXES:
            small.draw(name, FIELD, box)
    small.close()
    kept = small._kept.values()
    assert sum(len(x) if isinstance(x, bytes) else 3 * THUMBNAIL**2 for x in kept) == small._bytes
    assert most / 2 < small._bytes <= most
    assert len(kept) < 3 * len(BOXES)


def test_what_lies_beyond_the_field_is_grey() -> None:
    made = np.asarray(draw_cell(IMAGE, (0.0, 0.0, 60.0, 60.0), THUMBNAIL))
    assert made.shape == (THUMBNAIL, THUMBNAIL, 3)
    assert (made[:10, :10] == BEYOND).all()
