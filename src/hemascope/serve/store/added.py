"""A cell that the machine missed: drawn by a person, named by the model, and reviewed as others."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from sqlalchemy import insert, select, update

from hemascope.serialization import from_json
from hemascope.serve.store import audit
from hemascope.serve.store.database import Store
from hemascope.serve.store.people import User
from hemascope.serve.store.review import add_edit, list_cells, open_for_review
from hemascope.serve.store.samples import cell_row
from hemascope.serve.store.schema import cells, fields
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.reasons import is_outside_frame
from hemascope.smear.records import Box, LocatedCell

SMALLEST = 8.0  # pixels
SAME = 0.5  # overlap of two boxes that are of one cell
NOT_A_CELL = "not a cell"


def locate_by_hand(field: NamedField, box: Box) -> LocatedCell:
    """The cell in a box that somebody drew. Raises ValueError for a box that cannot be of one."""
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= field.width and 0 <= y0 < y1 <= field.height):
        raise ValueError("the box must be within the field")
    if min(x1 - x0, y1 - y0) < SMALLEST:
        raise ValueError(f"the box must be at least {SMALLEST:g} pixels wide and high")
    at_border = min(x0, y0, field.width - x1, field.height - y1) < 1
    cell = LocatedCell("white", box, 1.0, at_border)
    if is_outside_frame(cell, field.width, field.height):
        raise ValueError("a cell at the left or upper border counts as the neighbouring field's")
    return cell


def add_cell(store: Store, user: User, sample_id: str, number: int, cell: NamedCell) -> int:
    """Adds a cell to a field of a sample, and gives its number; `undo` takes it out again.

    Cells of a field are only ever added, so that the place of one never changes. Raises ValueError
    where there is one already, and ConflictError where the sample is signed.
    """
    with store.changing() as connection:
        open_for_review(connection, sample_id)
        row = connection.execute(
            select(fields.c.id, fields.c.named).where(
                fields.c.sample_id == sample_id, fields.c.number == number
            )
        ).one()
        field = from_json(row.named, NamedField)
        for known in list_cells(connection, sample_id):
            box = field.cells[known.number].located.box if known.field == number else None
            if box is not None and overlap(box, cell.located.box) > SAME:
                raise ValueError(f"this is cell {known.id}, which is there already")
        grown = replace(field, cells=(*field.cells, cell))
        content = msgspec.json.encode(grown)
        connection.execute(update(fields).where(fields.c.id == row.id).values(named=content))
        values = cell_row(sample_id, row.id, len(field.cells), cell)
        made = connection.execute(insert(cells).values(**values, added_by=user.name))
        assert made.inserted_primary_key is not None
        cell_id = int(made.inserted_primary_key[0])
        add_edit(connection, user, sample_id, {cell_id: NOT_A_CELL}, "")
        where = {"cell": cell_id, "field": number, "box": cell.located.box}
        audit.append(connection, user.name, "add cell", sample_id, **where)
        return cell_id


def overlap(one: Box, other: Box) -> float:
    """The area that two boxes share, of the area that they cover together.

    >>> overlap((0, 0, 2, 1), (1, 0, 3, 1))
    0.3333333333333333
    """
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (one, other)]
    return shared / (sum(areas) - shared)
