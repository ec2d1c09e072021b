"""The audit trail: entries that are only ever added, each with the hash of the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from hemascope.serve.store.schema import audit_head, audit_trail

BEGINNING = "0" * 64


@dataclass(frozen=True)
class Verified:
    """What was found of an audit trail: entries, the hash of the last, and what is wrong."""

    entries: int
    hash: str
    problems: tuple[str, ...]


def now() -> str:
    """The present time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def shown(moment: str) -> str:
    """A time of `now` for people.

    >>> shown("2026-11-28T12:05:59.120+00:00")
    '2026-11-28 12:05 UTC'
    """
    return f"{moment[:16].replace('T', ' ')} UTC"


def append(connection: Connection, who: str, action: str, subject: str, **detail: object) -> None:
    """Adds an entry, in the transaction of the change that it is about."""
    head = connection.execute(select(audit_head.c.number, audit_head.c.hash)).one_or_none()
    number, previous = (head.number + 1, head.hash) if head else (1, BEGINNING)
    text = json.dumps(detail, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    values = (number, now(), who, action, subject, text, previous)
    found = _hash(*values)
    names = ("number", "at", "who", "action", "subject", "detail", "previous")
    row = dict(zip(names, values, strict=True)) | {"hash": found}
    connection.execute(insert(audit_trail).values(**row))
    if head is None:
        connection.execute(insert(audit_head).values(id=1, number=number, hash=found))
    else:
        connection.execute(update(audit_head).values(number=number, hash=found))


def _hash(*values: object) -> str:
    """Over the values as JSON, so that none can run over into the next."""
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()


def read_entries(connection: Connection) -> Iterator[Mapping[str, Any]]:
    """All entries, in order."""
    found = connection.execute(select(audit_trail).order_by(audit_trail.c.number))
    for entry in found.mappings():
        yield {str(name): value for name, value in entry.items()}


def verify(connection: Connection, expected: str | None = None) -> Verified:
    """Finds any entry that was changed, removed, added or moved.

    `expected` is a hash that was noted down outside the database: the trail must contain it.
    Without it, somebody who can write the database and computes all hashes anew is not found out.
    """
    problems: list[str] = []
    previous, count, seen = BEGINNING, 0, expected is None
    for entry in read_entries(connection):
        count += 1
        if entry["number"] != count:
            problems.append(f"entry {count} is missing; {entry['number']} is in its place")
            count = int(entry["number"])
        if entry["previous"] != previous:
            problems.append(f"entry {count} does not follow the one before it")
        if _hash(*(value for name, value in entry.items() if name != "hash")) != entry["hash"]:
            problems.append(f"entry {count} was changed")
        previous = str(entry["hash"])
        seen = seen or previous == expected
    head = connection.execute(select(audit_head.c.number, audit_head.c.hash)).one_or_none()
    if (head.number, head.hash) != (count, previous) if head else count:
        problems.append("entries at the end were removed or added")
    if not seen:
        problems.append("the expected hash is not in the trail")
    return Verified(count, previous, tuple(problems))
