"""The fields of a sample with a box around each cell that is in the review."""

from __future__ import annotations

from starlette.responses import Response

from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.galleries import find, title_of
from hemascope.serve.pages.render import render
from hemascope.serve.store.review import list_cells
from hemascope.serve.store.samples import list_images, read_fields


def show_field_page(call: Call) -> Response:
    """One field."""
    number = call.request.path_params["number"]
    with call.station.store.reading() as connection:
        sample = find(call, connection)
        images = list_images(connection, sample.id)
        fields = read_fields(connection, sample.id)
        cells = [cell for cell in list_cells(connection, sample.id) if cell.field == number]
    if number >= len(fields):
        raise ProblemError(404, "there is no such field")
    field = fields[number]
    boxes = [
        (cell, title_of(cell.counts_as), field.cells[cell.number].located.box) for cell in cells
    ]
    return render(
        "field.html.j2",
        user=call.user,
        sample=sample,
        number=number,
        last=len(fields) - 1,
        name=images[number][0],
        field=field,
        boxes=boxes,
    )
