"""Cells that were signed under a label, to compare others with: the laboratory's own."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec
from sqlalchemy import Connection, select

from hemascope.serve.store.schema import samples, signatures


def latest_labels(connection: Connection) -> Iterator[tuple[str, dict[int, str]]]:
    """(sample, label of each cell) as signed last, of each sample that is signed; latest first."""
    query = (
        select(signatures.c.sample_id, signatures.c.labels)
        .join(samples, samples.c.id == signatures.c.sample_id)
        .where(samples.c.state == "signed", signatures.c.version == samples.c.version)
        .order_by(signatures.c.id.desc())
    )
    seen = set()
    for row in connection.execute(query):
        if row.sample_id not in seen:
            seen.add(row.sample_id)
            yield row.sample_id, {cell: label for cell, _, label in msgspec.json.decode(row.labels)}


def find_references(
    connection: Connection, label: str, without: Collection[str], most: int = 12
) -> list[int]:
    """The numbers of cells that were signed under a label last, in samples but these."""
    found: list[int] = []
    for sample_id, labels in latest_labels(connection):
        if sample_id not in without:
            found += [cell for cell, given in labels.items() if given == label]
        if len(found) >= most:
            break
    return found[:most]
