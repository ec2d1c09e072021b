"""Blinded tests: a user names the cells of a signed sample without its labels, and is scored."""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, insert, select, update

from hemascope.serve.store import audit
from hemascope.serve.store.database import Store
from hemascope.serve.store.labels import UNIDENTIFIED
from hemascope.serve.store.people import User
from hemascope.serve.store.quality import Agreement, measure_agreement
from hemascope.serve.store.references import latest_labels
from hemascope.serve.store.review import ConflictError
from hemascope.serve.store.schema import cells, samples, signatures, tests, users


@dataclass(frozen=True)
class ProficiencyTest:
    """A test: who takes it, the signed label of each cell, and those that the user gave."""

    id: str
    sample_id: str
    sample: str
    user_id: int
    user: str
    given_by: str
    given: str
    finished: str
    truth: dict[int, str]
    labels: dict[int, str]
    changes: int

    @property
    def order(self) -> list[int]:
        """The cells in an order that says nothing of their labels, the same at each look."""
        mixed = sorted(self.truth)
        random.Random(self.id).shuffle(mixed)
        return mixed

    @property
    def answers(self) -> list[tuple[int, str, str]]:
        """(cell, the user's label, the signed one); a cell without a name is unidentified."""
        return [(c, self.labels.get(c, UNIDENTIFIED), self.truth[c]) for c in self.order]

    @property
    def score(self) -> Agreement:
        """How far the user agrees with what was signed."""
        return measure_agreement([(given, signed) for _, given, signed in self.answers])


def give_test(store: Store, by: User, sample_id: str, user_name: str) -> str:
    """Gives a user a signed sample, and gives the test's number.

    Raises ValueError for somebody who does not exist, or knows the sample, and for a sample that is
    not signed, or in which no cell has a name.
    """
    with store.changing() as connection:
        user = connection.execute(select(users).where(users.c.name == user_name)).one_or_none()
        if user is None or user.disabled:
            raise ValueError(f"nobody can log in as '{user_name}'")
        if _knows(connection, sample_id, user.id):
            raise ValueError(f"{user_name} has reviewed this sample, and knows its labels")
        signed = dict(latest_labels(connection)).get(sample_id, {})
        truth = {cell: label for cell, label in signed.items() if label != UNIDENTIFIED}
        if not truth:
            raise ValueError("only a signed sample with named cells can be given as a test")
        test_id = secrets.token_urlsafe(16)
        connection.execute(
            insert(tests).values(
                id=test_id,
                sample_id=sample_id,
                user_id=user.id,
                given_by=by.name,
                given=audit.now(),
                truth=msgspec.json.encode(truth),
                labels=b"{}",
            )
        )
        audit.append(connection, by.name, "give test", sample_id, test=test_id, user=user_name)
        return test_id


def label_in_test(
    store: Store, user: User, test_id: str, chosen: Collection[int], label: str
) -> None:
    """Names cells of a test. Raises ConflictError for another's test, and a finished one."""
    with store.changing() as connection:
        test = _open_test(connection, user, test_id)
        if not set(chosen) <= set(test.truth):
            raise ValueError("these cells are not of the test")
        labels = msgspec.json.encode(test.labels | dict.fromkeys(chosen, label))
        values = {"labels": labels, "changes": test.changes + 1}
        connection.execute(update(tests).where(tests.c.id == test_id).values(**values))


def finish_test(store: Store, user: User, test_id: str) -> None:
    """Ends a test, whose labels change no more. Raises ConflictError as above."""
    with store.changing() as connection:
        test = _open_test(connection, user, test_id)
        connection.execute(update(tests).where(tests.c.id == test_id).values(finished=audit.now()))
        right = sum(given == signed for _, given, signed in test.answers)
        detail = {"test": test_id, "right": right, "of": len(test.truth)}
        audit.append(connection, user.name, "finish test", test.sample_id, **detail)


def find_test(connection: Connection, test_id: str) -> ProficiencyTest | None:
    """The test of this number."""
    row = connection.execute(_QUERY.where(tests.c.id == test_id)).mappings().one_or_none()
    return None if row is None else _test(row)


def list_tests(connection: Connection, user_id: int | None = None) -> list[ProficiencyTest]:
    """All tests, or those of a user, the latest first."""
    query = _QUERY.order_by(tests.c.given.desc())
    if user_id is not None:
        query = query.where(tests.c.user_id == user_id)
    return [_test(row) for row in connection.execute(query).mappings()]


def list_hidden(connection: Connection, user_id: int) -> set[str]:
    """Samples that a user must not look at, as a test of them is open."""
    query = select(tests.c.sample_id).where(tests.c.user_id == user_id, tests.c.finished == "")
    return set(connection.execute(query).scalars())


def _knows(connection: Connection, sample_id: str, user_id: int) -> bool:
    labelled = select(cells.c.id).where(
        cells.c.sample_id == sample_id, cells.c.labelled_by == user_id
    )
    signed = select(signatures.c.id).where(
        signatures.c.sample_id == sample_id, signatures.c.user_id == user_id
    )
    return any(connection.execute(query.limit(1)).first() for query in (labelled, signed))


def _open_test(connection: Connection, user: User, test_id: str) -> ProficiencyTest:
    test = find_test(connection, test_id)
    if test is None or test.user_id != user.id:
        raise ConflictError("there is no such test of yours")
    if test.finished:
        raise ConflictError("the test is finished")
    return test


def _test(row: RowMapping) -> ProficiencyTest:
    values: dict[str, Any] = dict(row)
    for name in ("truth", "labels"):
        values[name] = msgspec.json.decode(values[name], type=dict[int, str])
    return ProficiencyTest(**values)


_QUERY = (
    select(
        tests.c.id,
        tests.c.sample_id,
        samples.c.name.label("sample"),
        tests.c.user_id,
        users.c.name.label("user"),
        tests.c.given_by,
        tests.c.given,
        tests.c.finished,
        tests.c.truth,
        tests.c.labels,
        tests.c.changes,
    )
    .join(samples, samples.c.id == tests.c.sample_id)
    .join(users, users.c.id == tests.c.user_id)
)
