"""The signed labels of a store as a manifest: the rows that training, evaluation and adapt read."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, select

from hemascope.data.manifest import Manifest, ManifestRow, write_manifest
from hemascope.files import write_atomic
from hemascope.serialization import from_json
from hemascope.serve.store.database import Store
from hemascope.serve.store.labels import OUTSIDE, UNIDENTIFIED
from hemascope.serve.store.references import latest_labels
from hemascope.serve.store.schema import cells, fields
from hemascope.smear.counted import NamedField

MANIFEST = "labels.csv"


def export_labels(
    store: Store,
    folder: Path,
    laboratory: str = "",
    overwrite: bool = False,
    chosen: Collection[str] | None = None,
) -> int:
    """Writes a manifest and the fields it names into a folder, and gives the number of cells.

    Each cell of a signed sample is a row, with the label that was signed last, its place and its
    scale; its group is the sample. Cells without a name, and what is no single cell, are left out.
    Of a field that is in several samples, the label that was signed last counts.
    `chosen` are the samples that are taken, by default all.
    Raises ManifestError where there is a manifest that may not be replaced.
    """
    with store.reading() as connection:
        rows = _signed_rows(connection, laboratory, chosen)
    write_manifest(Manifest(folder, tuple(rows)), folder / MANIFEST, overwrite)
    for sha256 in {row.sha256 for row in rows}:
        path = folder / _path_of(sha256)
        if not path.exists():
            write_atomic(path, store.images.read(sha256))
    return len(rows)


def _signed_rows(
    connection: Connection, laboratory: str, chosen: Collection[str] | None
) -> list[ManifestRow]:
    rows: dict[tuple[str, float | None, float | None], ManifestRow] = {}
    for sample_id, labels in latest_labels(connection):
        if chosen is None or sample_id in chosen:
            for row in _rows_of(connection, sample_id, labels, laboratory):
                rows.setdefault((row.path, row.x, row.y), row)
    return list(rows.values())


def _rows_of(
    connection: Connection, sample_id: str, signed: dict[int, str], laboratory: str
) -> list[ManifestRow]:
    query = (
        select(cells.c.id, cells.c.number, fields.c.sha256, fields.c.named)
        .join(fields, fields.c.id == cells.c.field_id)
        .where(cells.c.sample_id == sample_id)
        .order_by(fields.c.number, cells.c.number)
    )
    rows, read = [], {}
    for row in connection.execute(query).mappings():
        label = signed.get(row["id"], UNIDENTIFIED)
        if label == UNIDENTIFIED or label in OUTSIDE:
            continue
        if row["sha256"] not in read:
            read[row["sha256"]] = from_json(row["named"], NamedField)
        found = read[row["sha256"]]
        x, y = found.cells[row["number"]].located.centre
        rows.append(
            ManifestRow(
                _path_of(row["sha256"]),
                label,
                sha256=row["sha256"],
                laboratory=laboratory,
                group=sample_id,
                um_per_pixel=found.um_per_pixel,
                x=x,
                y=y,
            )
        )
    return rows


def _path_of(sha256: str) -> str:
    """Where a field is in the folder; its kind is told by its content."""
    return f"images/{sha256}.png"
