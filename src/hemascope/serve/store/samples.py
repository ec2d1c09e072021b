"""Samples in the store: their fields, and their cells once these are located and named."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from hemascope.serialization import from_json
from hemascope.serve.store import audit
from hemascope.serve.store.database import Store
from hemascope.serve.store.people import User
from hemascope.serve.store.schema import cells, fields, samples
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.reasons import is_outside_frame, reason_without_name

SampleState: TypeAlias = Literal["importing", "failed", "new", "in review", "signed"]


@dataclass(frozen=True)
class StoredSample:
    """A sample as the store has it. `version` is that of its report; see `amend`."""

    id: str
    name: str
    state: SampleState
    problem: str
    created: str
    wbc: float | None
    um_per_pixel: float | None
    version: int
    reason: str
    changes: int
    opened: str

    @property
    def shown_state(self) -> str:
        """The state in the words of a laboratory."""
        if self.version > 1:
            return {"signed": "amended", "in review": "being amended"}.get(self.state, self.state)
        return self.state


@dataclass(frozen=True)
class NewField:
    """A field that is imported: what it is called, and its content."""

    name: str
    content: bytes


def add_sample(
    store: Store,
    user: User,
    name: str,
    given: Iterable[NewField],
    wbc: float | None = None,
    um_per_pixel: float | None = None,
) -> str:
    """Keeps the fields of a sample, which is then to be located, and gives its identifier.

    It cannot be guessed. All is on the disk when this returns. Fields are taken one by one, so that
    one of them is in memory at a time. Raises ValueError without fields.
    """
    kept = [(field.name, store.images.add(field.content)) for field in given]
    if not kept:
        raise ValueError("the sample has no fields")
    sample_id = secrets.token_urlsafe(16)
    with store.changing() as connection:
        connection.execute(
            insert(samples).values(
                id=sample_id,
                name=name,
                state="importing",
                created=audit.now(),
                created_by=user.id,
                wbc=wbc,
                um_per_pixel=um_per_pixel,
            )
        )
        rows = [
            {"sample_id": sample_id, "number": number, "name": field, "sha256": sha256}
            for number, (field, sha256) in enumerate(kept)
        ]
        connection.execute(insert(fields), rows)
        hashes = [sha256 for _, sha256 in kept]
        audit.append(connection, user.name, "import", sample_id, name=name, images=hashes)
    return sample_id


def fill_sample(
    store: Store, sample_id: str, named: Sequence[NamedField], model: str, locator: str
) -> None:
    """Adds the cells that were found on the fields, which are in order; all of them or none.

    White cells in the counting frame are for review. A sample that is filled already stays so.
    """
    with store.changing() as connection:
        if _state(connection, sample_id) != "importing":
            return
        found = connection.execute(
            select(fields.c.id).where(fields.c.sample_id == sample_id).order_by(fields.c.number)
        ).scalars()
        for field_id, field in zip(found, named, strict=True):
            content = msgspec.json.encode(field)
            row = update(fields).where(fields.c.id == field_id).values(named=content)
            connection.execute(row)
            rows = _cell_rows(sample_id, field_id, field)
            if rows:
                connection.execute(insert(cells), rows)
        values = {"state": "new", "model_sha256": model, "locator_sha256": locator}
        connection.execute(update(samples).where(samples.c.id == sample_id).values(**values))
        audit.append(connection, "station", "locate", sample_id, model=model, locator=locator)


def _cell_rows(sample_id: str, field_id: int, field: NamedField) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, cell in enumerate(field.cells):
        if cell.located.kind != "white" or is_outside_frame(
            cell.located, field.width, field.height
        ):
            continue
        rows.append(cell_row(sample_id, field_id, number, cell))
    return rows


def cell_row(sample_id: str, field_id: int, number: int, cell: NamedCell) -> dict[str, object]:
    """A cell for review, with what the machine says of it."""
    made = cell.prediction
    return {
        "sample_id": sample_id,
        "field_id": field_id,
        "number": number,
        "machine": (made and made.label) or "",
        "probability": (made and made.probability) or 0.0,
        "reason": reason_without_name(cell),
    }


def fail_sample(store: Store, sample_id: str, problem: str) -> None:
    """Says why the cells of a sample could not be located."""
    with store.changing() as connection:
        connection.execute(
            update(samples)
            .where(samples.c.id == sample_id, samples.c.state == "importing")
            .values(state="failed", problem=problem)
        )
        audit.append(connection, "station", "fail", sample_id, problem=problem)


def list_samples(connection: Connection, search: str = "", most: int = 500) -> list[StoredSample]:
    """The samples whose name contains a text, the latest first."""
    query = select(*_COLUMNS).order_by(samples.c.created.desc(), samples.c.id).limit(most)
    if search:
        query = query.where(samples.c.name.icontains(search, autoescape=True))
    return [StoredSample(**row) for row in connection.execute(query).mappings()]


def find_sample(connection: Connection, sample_id: str) -> StoredSample | None:
    """The sample of this identifier."""
    row = connection.execute(select(*_COLUMNS).where(samples.c.id == sample_id)).mappings().first()
    return None if row is None else StoredSample(**row)


def list_unfinished(connection: Connection) -> list[str]:
    """Samples whose cells are still to be located, also those that a stop has left so."""
    query = select(samples.c.id).where(samples.c.state == "importing").order_by(samples.c.created)
    return list(connection.execute(query).scalars())


def read_fields(connection: Connection, sample_id: str) -> list[NamedField]:
    """The fields of a sample with all cells that were located, by the machine's names."""
    query = select(fields.c.named).where(fields.c.sample_id == sample_id).order_by(fields.c.number)
    found = connection.execute(query).scalars()
    return [from_json(named, NamedField) for named in found if named is not None]


def list_images(connection: Connection, sample_id: str) -> list[tuple[str, str]]:
    """(name, SHA-256) of each field, in order."""
    query = (
        select(fields.c.name, fields.c.sha256)
        .where(fields.c.sample_id == sample_id)
        .order_by(fields.c.number)
    )
    return [(row.name, row.sha256) for row in connection.execute(query)]


def discard_failed(store: Store, user: User, sample_id: str) -> None:
    """Removes a sample that could not be located; its images stay. Raises ValueError for others."""
    with store.changing() as connection:
        if _state(connection, sample_id) != "failed":
            raise ValueError("only a sample that could not be located can be discarded")
        connection.execute(delete(fields).where(fields.c.sample_id == sample_id))
        connection.execute(delete(samples).where(samples.c.id == sample_id))
        audit.append(connection, user.name, "discard", sample_id)


def _state(connection: Connection, sample_id: str) -> str | None:
    return connection.execute(select(samples.c.state).where(samples.c.id == sample_id)).scalar()


_COLUMNS = (
    samples.c.id,
    samples.c.name,
    samples.c.state,
    samples.c.problem,
    samples.c.created,
    samples.c.wbc,
    samples.c.um_per_pixel,
    samples.c.version,
    samples.c.reason,
    samples.c.changes,
    samples.c.opened,
)
