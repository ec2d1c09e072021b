"""Changes of cells by people: labels with undo and redo, comments; no update is ever lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, insert, select, update

from hemascope.errors import HemascopeError
from hemascope.serve.store import audit
from hemascope.serve.store.database import Store
from hemascope.serve.store.labels import effective
from hemascope.serve.store.people import User
from hemascope.serve.store.schema import cells, edit_cells, edits, fields, samples, users

LONGEST_COMMENT = 2000  # characters
MOST_CELLS = 5000  # in one change


class ConflictError(HemascopeError):
    """A change that somebody else was faster with; the text says what to do."""


@dataclass(frozen=True)
class ReviewedCell:
    """A cell with the machine's label and a person's, which are kept apart.

    `field` is the number of its field, and `number` its place among the cells there. `counts_as` is
    what it is for the count. `version` rises with each change. `added_by` drew a cell that the
    machine had missed.
    """

    id: int
    field: int
    number: int
    machine: str
    probability: float
    reason: str
    label: str
    labelled_by: str
    comment: str
    version: int
    labelled_at: str = ""
    added_by: str = ""

    @property
    def counts_as(self) -> str:
        """The label by which it counts."""
        return effective(self.machine, self.reason, self.label)


def list_cells(connection: Connection, sample_id: str) -> list[ReviewedCell]:
    """The cells of a sample, the least certain first."""
    query = (
        select(*_COLUMNS)
        .join(fields, fields.c.id == cells.c.field_id)
        .outerjoin(users, users.c.id == cells.c.labelled_by)
        .where(cells.c.sample_id == sample_id)
        .order_by(cells.c.probability, cells.c.id)
    )
    return [_cell(row) for row in connection.execute(query).mappings()]


def find_cell(connection: Connection, cell_id: int) -> tuple[str, str, ReviewedCell] | None:
    """(sample, SHA-256 of its field, cell) of this number."""
    query = (
        select(*_COLUMNS, cells.c.sample_id, fields.c.sha256)
        .join(fields, fields.c.id == cells.c.field_id)
        .outerjoin(users, users.c.id == cells.c.labelled_by)
        .where(cells.c.id == cell_id)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else (row["sample_id"], row["sha256"], _cell(row))


def label_cells(
    store: Store, user: User, sample_id: str, versions: Mapping[int, int], label: str
) -> int:
    """Gives cells a label, all or none, and gives the number of the change.

    `versions` are those of the cells that the user saw. An empty label takes a person's back.
    Raises ConflictError where another has changed one of them since, or the sample is signed.
    """
    if not 0 < len(versions) <= MOST_CELLS:
        raise ValueError(f"a change is of 1 to {MOST_CELLS} cells")
    with store.changing() as connection:
        open_for_review(connection, sample_id)
        found = _read(connection, sample_id, versions)
        for cell_id, version in versions.items():
            if cell_id not in found or found[cell_id].version != version:
                raise ConflictError("somebody else has changed these cells; look at them again")
        before = {cell_id: cell.label for cell_id, cell in found.items()}
        number = add_edit(connection, user, sample_id, before, label)
        _write(connection, user, dict.fromkeys(before, label))
        _note(connection, user, "label", sample_id, before, dict.fromkeys(before, label))
        return number


def add_edit(
    connection: Connection, user: User, sample_id: str, before: Mapping[int, str], after: str
) -> int:
    """Makes a change of labels one that can be undone; what was undone can be redone no more."""
    mine = (edits.c.sample_id == sample_id, edits.c.user_id == user.id)
    connection.execute(
        update(edits).where(*mine, edits.c.state == "undone").values(state="dropped")
    )
    made = connection.execute(
        insert(edits).values(sample_id=sample_id, user_id=user.id, state="done")
    )
    key = made.inserted_primary_key
    assert key is not None
    rows = [
        {"edit_id": key[0], "cell_id": cell_id, "before": label, "after": after}
        for cell_id, label in before.items()
    ]
    connection.execute(insert(edit_cells), rows)
    return int(key[0])


def undo(store: Store, user: User, sample_id: str) -> list[int]:
    """Takes the user's last change of a sample back, and gives its cells; none for nothing.

    Raises ConflictError where another has changed one of the cells since, or the sample is signed.
    """
    return _step(store, user, sample_id, "done", "undone")


def redo(store: Store, user: User, sample_id: str) -> list[int]:
    """Makes the change again that was undone last; see `undo`."""
    return _step(store, user, sample_id, "undone", "done")


def _step(store: Store, user: User, sample_id: str, state: str, new: str) -> list[int]:
    is_undo = new == "undone"
    with store.changing() as connection:
        open_for_review(connection, sample_id)
        order = edits.c.id.desc() if is_undo else edits.c.id.asc()
        edit = connection.execute(
            select(edits.c.id)
            .where(
                edits.c.sample_id == sample_id,
                edits.c.user_id == user.id,
                edits.c.state == state,
            )
            .order_by(order)
            .limit(1)
        ).scalar()
        if edit is None:
            return []
        rows = connection.execute(select(edit_cells).where(edit_cells.c.edit_id == edit)).all()
        old = {row.cell_id: row.after if is_undo else row.before for row in rows}
        after = {row.cell_id: row.before if is_undo else row.after for row in rows}
        found = _read(connection, sample_id, old)
        if any(found[cell_id].label != label for cell_id, label in old.items()):
            raise ConflictError("somebody else has changed these cells since")
        connection.execute(update(edits).where(edits.c.id == edit).values(state=new))
        _write(connection, user, after)
        _note(connection, user, "undo" if is_undo else "redo", sample_id, old, after)
        return sorted(after)


def comment_cell(
    store: Store, user: User, sample_id: str, cell_id: int, version: int, comment: str
) -> None:
    """Puts a comment on a cell in place of the one before. Raises as `label_cells` does."""
    if len(comment) > LONGEST_COMMENT:
        raise ValueError(f"a comment has at most {LONGEST_COMMENT} characters")
    with store.changing() as connection:
        open_for_review(connection, sample_id)
        found = _read(connection, sample_id, [cell_id])
        if cell_id not in found or found[cell_id].version != version:
            raise ConflictError("somebody else has changed this cell; look at it again")
        connection.execute(
            update(cells)
            .where(cells.c.id == cell_id)
            .values(comment=comment, version=cells.c.version + 1)
        )
        audit.append(connection, user.name, "comment", sample_id, cell=cell_id, comment=comment)


def open_for_review(connection: Connection, sample_id: str) -> None:
    """Marks a sample as in review and changed. Raises ConflictError for one that is locked."""
    state = connection.execute(select(samples.c.state).where(samples.c.id == sample_id)).scalar()
    if state == "signed":
        raise ConflictError("the sample is signed; amend it to change its cells")
    if state not in ("new", "in review"):
        raise ConflictError("the sample is not ready for review")
    connection.execute(
        update(samples)
        .where(samples.c.id == sample_id)
        .values(state="in review", changes=samples.c.changes + 1)
    )


def _read(connection: Connection, sample_id: str, chosen: Iterable[int]) -> dict[int, ReviewedCell]:
    wanted = set(chosen)
    return {cell.id: cell for cell in list_cells(connection, sample_id) if cell.id in wanted}


def _write(connection: Connection, user: User, after: Mapping[int, str]) -> None:
    moment = audit.now()
    for cell_id, label in after.items():
        connection.execute(
            update(cells)
            .where(cells.c.id == cell_id)
            .values(
                label=label,
                labelled_by=user.id if label else None,
                labelled_at=moment if label else "",
                version=cells.c.version + 1,
            )
        )


def _note(
    connection: Connection,
    user: User,
    action: str,
    sample_id: str,
    before: Mapping[int, str],
    after: Mapping[int, str],
) -> None:
    changes: Sequence[tuple[int, str, str]] = [
        (cell_id, before[cell_id], after[cell_id]) for cell_id in sorted(after)
    ]
    audit.append(connection, user.name, action, sample_id, cells=changes)


def _cell(row: RowMapping) -> ReviewedCell:
    values = {name: row[name] for name in ReviewedCell.__dataclass_fields__}
    return ReviewedCell(**values | {"labelled_by": row["labelled_by"] or ""})


_COLUMNS = (
    cells.c.id,
    fields.c.number.label("field"),
    cells.c.number,
    cells.c.machine,
    cells.c.probability,
    cells.c.reason,
    cells.c.label,
    users.c.name.label("labelled_by"),
    cells.c.comment,
    cells.c.version,
    cells.c.labelled_at,
    cells.c.added_by,
)
