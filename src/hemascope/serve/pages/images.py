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
from hemascope.serve.pages.small import draw_cell
from hemascope.serve.pages.station import Station, read_image
from hemascope.serve.store.database import Store
from hemascope.serve.store.proficiency import list_hidden
from hemascope.serve.store.review import find_cell
from hemascope.serve.store.samples import list_images, read_fields
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.records import Box

LARGE = 480
MOST_LIKELY = 3
NAMED = ("map.png", "probabilities")  # what tells of the label of a cell
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def show_thumbnail(call: Call) -> Response:
    """A cell, small."""
    sha256, field, cell = _find_named(call)
    return _png(call.station.small.draw(sha256, field, cell.located.box))


def show_large(call: Call) -> Response:
    """A cell, large."""
    sha256, _, cell = _find_named(call)
    return _png(_draw_large(call.station.store, sha256, cell.located.box))


def show_map(call: Call) -> Response:
    """Where the image of a cell supports its most probable class."""
    sha256, field, cell = _find_named(call)
    if field.um_per_pixel is None:
        raise ProblemError(404, "the scale is not known, so that the cell has no class map")
    return _png(_draw_map(call.station, sha256, cell.located.box, field.um_per_pixel))


def show_probabilities(call: Call) -> Response:
    """The three classes that the machine finds most probable, and what the cell looks like."""
    made = _find_named(call)[2].prediction
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


def _find_named(call: Call) -> tuple[str, NamedField, NamedCell]:
    """The SHA-256 of a cell's field, the field, and the cell."""
    store = call.station.store
    sample_id, sha256, number, place = _place(store, call.request.path_params["cell"])
    if call.request.url.path.endswith(NAMED):
        with store.reading() as connection:
            hidden = list_hidden(connection, call.user.id)
        if sample_id in hidden:
            raise ProblemError(403, "you are tested with this sample; finish the test first")
    field = _fields(store, sample_id)[number]
    if place >= len(field.cells):  # it was added since
        _fields.cache_clear()
        field = _fields(store, sample_id)[number]
    return sha256, field, field.cells[place]


@lru_cache(maxsize=2**14)
def _place(store: Store, cell_id: int) -> tuple[str, str, int, int]:
    """The sample of a cell, the SHA-256 and the number of its field, and its number there, which
    never change. Raises ProblemError where there is no such cell."""
    with store.reading() as connection:
        found = find_cell(connection, cell_id)
    if found is None:
        raise ProblemError(404, "there is no such cell")
    sample_id, sha256, cell = found
    return sample_id, sha256, cell.field, cell.number


@lru_cache(maxsize=8)
def _fields(store: Store, sample_id: str) -> list[NamedField]:
    """What was located on a sample's fields, of which none ever goes."""
    with store.reading() as connection:
        return read_fields(connection, sample_id)


@lru_cache(maxsize=500)
def _draw_large(store: Store, sha256: str, box: Box) -> bytes:
    return to_png(draw_cell(read_image(store, sha256), box, LARGE))


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
