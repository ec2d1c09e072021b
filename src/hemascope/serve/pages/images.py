"""Images of the review pages: thumbnails, one cell large with its class map, fields."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import numpy as np
from PIL import Image
from starlette.responses import Response

from hemascope.attributes import describe_cell
from hemascope.inference.explain import offset_of, overlay
from hemascope.preprocess import View
from hemascope.serve.app.pictures import to_png
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.station import Station, read_image
from hemascope.serve.store.database import Store
from hemascope.serve.store.proficiency import list_hidden
from hemascope.serve.store.review import find_cell
from hemascope.serve.store.samples import list_images, read_fields
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.records import Box

THUMBNAIL, LARGE, MARGIN = 96, 480, 1.5
MOST_LIKELY = 3
NAMED = ("map.png", "probabilities")  # what tells of the label of a cell
BEYOND = (160, 160, 160)  # the border of the field
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def show_thumbnail(call: Call) -> Response:
    """A cell, small."""
    sha256, box, _ = _find(call)
    return _png(_draw_cell(call.station.store, sha256, box, THUMBNAIL))


def show_large(call: Call) -> Response:
    """A cell, large."""
    sha256, box, _ = _find(call)
    return _png(_draw_cell(call.station.store, sha256, box, LARGE))


def show_map(call: Call) -> Response:
    """Where the image of a cell supports its most probable class."""
    sha256, box, width = _find(call)
    if width is None:
        raise ProblemError(404, "the scale is not known, so that the cell has no class map")
    return _png(_draw_map(call.station, sha256, box, width))


def show_probabilities(call: Call) -> Response:
    """The three classes that the machine finds most probable, and what the cell looks like."""
    made = _find_named(call)[1].prediction
    known = made.probabilities.items() if made else ()
    likely = sorted(known, key=lambda item: -item[1])[:MOST_LIKELY]
    shares = [(call.texts.label(name), share) for name, share in likely]
    content = {
        "likely": shares,
        "looks": call.texts.looks("" if made is None else describe_cell(made)),
    }
    return Response(msgspec.json.encode(content), headers=FOR_EVER, media_type="application/json")


def show_field(call: Call) -> Response:
    """A field as a picture that browsers can show."""
    store, number = call.station.store, call.request.path_params["number"]
    with store.reading() as connection:
        images = list_images(connection, call.request.path_params["id"])
    if number >= len(images):
        raise ProblemError(404, "there is no such field")
    return _png(to_png(read_image(store, images[number][1])))


def _find(call: Call) -> tuple[str, Box, float | None]:
    """The SHA-256 of a cell's field, its box, and the scale."""
    sha256, cell, width = _find_named(call)
    return sha256, cell.located.box, width


def _find_named(call: Call) -> tuple[str, NamedCell, float | None]:
    store = call.station.store
    with store.reading() as connection:
        found = find_cell(connection, call.request.path_params["cell"])
        hidden = list_hidden(connection, call.user.id)
    if found is None:
        raise ProblemError(404, "there is no such cell")
    sample_id, sha256, cell = found
    if sample_id in hidden and call.request.url.path.endswith(NAMED):
        raise ProblemError(403, "you are tested with this sample; finish the test first")
    field = _fields(store, sample_id)[cell.field]
    if cell.number >= len(field.cells):  # it was added since
        _fields.cache_clear()
        field = _fields(store, sample_id)[cell.field]
    return sha256, field.cells[cell.number], field.um_per_pixel


@lru_cache(maxsize=8)
def _fields(store: Store, sample_id: str) -> list[NamedField]:
    """What was located on a sample's fields, of which none ever goes."""
    with store.reading() as connection:
        return read_fields(connection, sample_id)


@lru_cache(maxsize=20_000)
def _draw_cell(store: Store, sha256: str, box: Box, size: int) -> bytes:
    x0, y0, x1, y1 = box
    half = MARGIN * max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    image = read_image(store, sha256)
    side = max(1, round(2 * half))
    part = Image.new("RGB", (side, side), BEYOND)
    part.paste(image, (round(half - x), round(half - y)))
    return to_png(part.resize((size, size), Image.Resampling.BICUBIC))


@lru_cache(maxsize=500)
def _draw_map(station: Station, sha256: str, box: Box, width: float) -> bytes:
    classifier = station.counting.classifier
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    view = View(read_image(station.store, sha256), width, centre)
    (made,) = classifier.predict(view, class_maps=True)
    own = classifier.model_for(made).card
    if made.class_map is None or made.label is None:
        raise ProblemError(404, "the cell has no class map")
    pixels, _ = own.input.read(view, None)
    chosen = made.class_map[own.classes.index(made.label)]
    drawn = Image.fromarray(np.asarray(overlay(pixels, chosen, offset_of(classifier, made))))
    return to_png(drawn.resize((LARGE, LARGE), Image.Resampling.BICUBIC))


def _png(content: bytes) -> Response:
    return Response(content, headers=FOR_EVER, media_type="image/png")
