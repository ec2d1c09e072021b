"""The fields of a sample: a box around each cell, and cells that a person adds."""

from __future__ import annotations

from statistics import median

from starlette.responses import Response

from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.galleries import (
    answer_state,
    find,
    labels_with_keys,
    may_change,
    state_of,
)
from hemascope.serve.pages.render import render
from hemascope.serve.store.added import add_cell
from hemascope.serve.store.review import list_cells
from hemascope.serve.store.samples import list_images, read_fields
from hemascope.smear.counted import NamedField
from hemascope.smear.records import Box

USUAL = 12.0  # micrometres, of a white cell
FAR = 1e6  # pixels; no field is as wide
UNKNOWN = 60.0  # pixels, where neither a scale nor another cell tells


def show_field_page(call: Call) -> Response:
    """One field."""
    number = call.request.path_params["number"]
    with call.station.store.reading() as connection:
        sample = find(call, connection)
        images = list_images(connection, sample.id)
        fields = read_fields(connection, sample.id)
        cells = list_cells(connection, sample.id)
    field = _choose(fields, number)
    return render(
        "field.html.j2",
        call.texts,
        user=call.user,
        sample=sample,
        number=number,
        last=len(fields) - 1,
        name=images[number][0],
        field=field,
        boxes={
            str(cell.id): field.cells[cell.number].located.box
            for cell in cells
            if cell.field == number
        },
        usual=usual_diameter(fields, field),
        labels=labels_with_keys(call),
        may_change=may_change(call, sample),
        state=state_of(call, sample, cells),
    )


def add_missed(call: Call) -> Response:
    """Adds the cell in a box that the user drew, named by the model."""
    number, box = call.request.path_params["number"], _read_box(call)
    with call.station.store.reading() as connection:
        sample = find(call, connection)
        images = list_images(connection, sample.id)
        field = _choose(read_fields(connection, sample.id), number)
    cell = call.station.name_by_hand(images[number][1], field, box)
    added = add_cell(call.station.store, call.user, sample.id, number, cell)
    return answer_state(call, added=added)


def usual_diameter(fields: list[NamedField], field: NamedField) -> float:
    """How wide a white cell of a sample is, in pixels: the box of a cell that is clicked at."""
    known = [
        cell.located.diameter
        for each in fields
        for cell in each.cells
        if cell.located.kind == "white" and not cell.located.at_border
    ]
    if known:
        return round(median(known), 1)
    return UNKNOWN if field.um_per_pixel is None else round(USUAL / field.um_per_pixel, 1)


def _choose(fields: list[NamedField], number: int) -> NamedField:
    if number >= len(fields):
        raise ProblemError(404, "there is no such field")
    return fields[number]


def _read_box(call: Call) -> Box:
    found = call.form.get("box")
    if (
        not isinstance(found, list)
        or len(found) != 4
        or not all(type(value) in (int, float) and abs(value) < FAR for value in found)
    ):
        raise ProblemError(400, "box must be four numbers")
    x0, y0, x1, y1 = map(float, found)
    return x0, y0, x1, y1
