"""Bundles that the station made of signed labels: state, comparison, and which is chosen."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, RowMapping, insert, select, update

from hemascope.bundle.bundle import read_bundle
from hemascope.bundle.card import CARD_FILE
from hemascope.errors import BundleError, StorageError
from hemascope.files import sha256_of
from hemascope.metrics.agreement import chance_of_pairs
from hemascope.records import Proportion
from hemascope.serialization import from_json, to_json
from hemascope.serve.store import audit
from hemascope.serve.store.copied import BUNDLES
from hemascope.serve.store.database import Store
from hemascope.serve.store.people import User
from hemascope.serve.store.review import ConflictError
from hemascope.serve.store.schema import bundles

BundleState: TypeAlias = Literal["training", "ready", "failed"]
STOPPED = "the station was stopped while it learnt; begin again"
FIRST = "the first bundle"


@dataclass(frozen=True)
class Comparison:
    """Two bundles on the same signed cells of samples that neither learnt from.

    `better` cells were named rightly by the new bundle alone, and `worse` by the present one alone.
    """

    present: str
    made: str
    samples: int
    right_new: Proportion
    right_present: Proportion
    better: int
    worse: int

    @property
    def p_value(self) -> float:
        """How often chance alone makes them differ as much, if cells are independent."""
        return chance_of_pairs(self.better, self.worse)


@dataclass(frozen=True)
class StoredBundle:
    """A bundle: from how many cells of samples signed until when, and since when it is chosen."""

    id: str
    name: str
    state: BundleState
    problem: str
    created: str
    created_by: str
    until: str
    samples: int
    cells: int
    card_sha256: str
    chosen: str
    comparison: Comparison | None


def folder_of(store: Store, bundle_id: str) -> Path:
    """Where a bundle is, beside the images."""
    return store.folder / BUNDLES / bundle_id


def add_bundle(store: Store, user: User, name: str, until: str, samples: int) -> str:
    """Notes that a bundle is being made. Raises ConflictError while another one is."""
    with store.changing() as connection:
        if connection.execute(select(bundles.c.id).where(bundles.c.state == "training")).first():
            raise ConflictError("the station is learning already; wait until it is done")
        bundle_id = secrets.token_hex(16)
        row = {"id": bundle_id, "name": name, "until": until, "samples": samples}
        more = {"state": "training", "created": audit.now(), "created_by": user.name}
        connection.execute(insert(bundles).values(**row, **more))
        audit.append(connection, user.name, "learn", bundle_id, until=until, samples=samples)
        return bundle_id


def finish_bundle(store: Store, bundle_id: str, cells: int, doubts: str = "") -> None:
    """Notes that a bundle is in its folder, and what is doubtful of its cells."""
    card = sha256_of((folder_of(store, bundle_id) / CARD_FILE).read_bytes())
    with store.changing() as connection:
        values = {"state": "ready", "cells": cells, "card_sha256": card, "problem": doubts}
        connection.execute(update(bundles).where(bundles.c.id == bundle_id).values(**values))
        audit.append(connection, "station", "learnt", bundle_id, cells=cells, card=card)


def fail_bundle(store: Store, bundle_id: str, problem: str) -> None:
    """Says why a bundle could not be made."""
    with store.changing() as connection:
        values = {"state": "failed", "problem": problem}
        connection.execute(update(bundles).where(bundles.c.id == bundle_id).values(**values))
        audit.append(connection, "station", "fail to learn", bundle_id, problem=problem)


def fail_unfinished(store: Store) -> None:
    """Says of bundles that a stop has left unfinished that they failed."""
    with store.reading() as connection:
        query = select(bundles.c.id).where(bundles.c.state == "training")
        left = list(connection.execute(query).scalars())
    for bundle_id in left:
        fail_bundle(store, bundle_id, STOPPED)


def keep_comparison(store: Store, bundle_id: str, found: Comparison) -> None:
    """Keeps how a bundle compares with the present one."""
    with store.changing() as connection:
        values = {"comparison": to_json(found)}
        connection.execute(update(bundles).where(bundles.c.id == bundle_id).values(**values))
        detail = {"present": found.present, "better": found.better, "worse": found.worse}
        audit.append(connection, "station", "compare", bundle_id, **detail)


def choose_bundle(store: Store, user: User, bundle_id: str) -> None:
    """Makes a bundle the one that the station starts with; an empty one goes back to the first.

    Raises ConflictError without the role, and for a bundle that is not ready.
    """
    if not user.may("administrator"):
        raise ConflictError("only an administrator may switch the bundle")
    with store.changing() as connection:
        found = find_bundle(connection, bundle_id) if bundle_id else None
        if bundle_id and (found is None or found.state != "ready"):
            raise ConflictError("there is no such bundle, or it is not ready")
        connection.execute(update(bundles).values(chosen=""))
        moment = update(bundles).where(bundles.c.id == bundle_id).values(chosen=audit.now())
        connection.execute(moment)
        card = found.card_sha256 if found else ""
        audit.append(connection, user.name, "switch bundle", bundle_id or FIRST, card=card)


def chosen_folder(store: Store) -> Path | None:
    """The bundle that an administrator chose; None for the first.

    Raises StorageError for one that is missing or was altered.
    """
    with store.reading() as connection:
        row = connection.execute(_QUERY.where(bundles.c.chosen != "")).one_or_none()
    if row is None:
        return None
    folder = folder_of(store, row.id)
    card = folder / CARD_FILE
    if not card.exists() or sha256_of(card.read_bytes()) != row.card_sha256:
        raise StorageError(f"{folder}: the bundle that was chosen is missing or was altered")
    return folder


def verify_bundles(store: Store) -> list[str]:
    """What is wrong with the bundles that are ready, in a sentence each."""
    problems = []
    with store.reading() as connection:
        ready = [found for found in list_bundles(connection) if found.state == "ready"]
    for found in ready:
        folder = folder_of(store, found.id)
        try:
            read_bundle(folder)
        except BundleError as error:
            problems.append(f"the bundle {found.name}: {error}")
            continue
        if sha256_of((folder / CARD_FILE).read_bytes()) != found.card_sha256:
            problems.append(f"the bundle {found.name}: {folder / CARD_FILE} was altered")
    return problems


def list_bundles(connection: Connection) -> list[StoredBundle]:
    """All bundles, the latest first."""
    query = _QUERY.order_by(bundles.c.created.desc())
    return [_bundle(row) for row in connection.execute(query).mappings()]


def find_bundle(connection: Connection, bundle_id: str) -> StoredBundle | None:
    """The bundle of this number."""
    row = connection.execute(_QUERY.where(bundles.c.id == bundle_id)).mappings().one_or_none()
    return None if row is None else _bundle(row)


def _bundle(row: RowMapping) -> StoredBundle:
    values: dict[str, Any] = dict(row)
    kept = values["comparison"]
    values["comparison"] = None if kept is None else from_json(kept, Comparison)
    return StoredBundle(**values)


_QUERY = select(*(bundles.c[name] for name in StoredBundle.__dataclass_fields__))
