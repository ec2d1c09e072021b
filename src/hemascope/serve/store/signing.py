"""Signing a sample, which locks it; amending one, which opens a new version with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import msgspec
from sqlalchemy import Connection, insert, select, update

from hemascope.serialization import from_json, to_json
from hemascope.serve.store import audit
from hemascope.serve.store.database import Store
from hemascope.serve.store.labels import UNIDENTIFIED
from hemascope.serve.store.people import User, confirm_password
from hemascope.serve.store.review import ConflictError, ReviewedCell, list_cells
from hemascope.serve.store.review_time import review_seconds
from hemascope.serve.store.samples import StoredSample, find_sample
from hemascope.serve.store.schema import samples, signatures
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.method import UNSIGNED
from hemascope.smear.reported import ReportStatus
from hemascope.wording import fill

Meaning: TypeAlias = Literal["technologist", "reviewer"]
LONGEST_REASON = 500  # characters

Recount: TypeAlias = Callable[[Connection, StoredSample, Sequence[ReviewedCell]], DifferentialCount]
"""What counts a sample by its labels, within the transaction that signs it."""


class RefusedError(ConflictError):
    """A signature that is refused; the text says why."""


@dataclass(frozen=True)
class Signature:
    """Who signed a version of a sample, when, and as what; and the count that was signed."""

    version: int
    name: str
    meaning: Meaning
    signed: str
    reason: str
    count: DifferentialCount

    def describe(self) -> str:
        """In words."""
        said = fill(
            "Reviewed and signed by {name} as {meaning}, {when}, version {version}.",
            name=self.name,
            meaning=self.meaning,
            when=audit.shown(self.signed),
            version=self.version,
        )
        if not self.reason:
            return said
        return f"{said} {fill('Amended: {reason}.', reason=self.reason.rstrip('.'))}"

    @property
    def status(self) -> ReportStatus:
        """What exchange formats call such a report."""
        return "final" if self.version == 1 else "amended"


def sign(
    store: Store,
    user: User,
    sample_id: str,
    meaning: Meaning,
    password: str,
    changes: int,
    recount: Recount,
    needs_two: bool = False,
) -> bool:
    """Signs a sample as it is, and gives whether it is locked now.

    `changes` is the sample's, as the user saw it, so that nobody signs what they did not see. With
    `needs_two`, a technologist and a reviewer must sign, who are not the same person. Raises
    RefusedError for a wrong password, a role that may not, cells that nobody identified, and a
    sample that has changed or is signed.
    """
    if not user.may(meaning):
        raise RefusedError(f"only a {meaning} may sign as {meaning}")
    if not confirm_password(store, user, password):
        raise RefusedError("the password is wrong, or the account is locked for a while")
    with store.changing() as connection:
        sample = _find(connection, sample_id)
        if sample.state not in ("new", "in review"):
            raise RefusedError("the sample is signed already, or not ready")
        if sample.changes != changes:
            raise RefusedError("the sample has changed since you looked at it; look at it again")
        cells = list_cells(connection, sample_id)
        _check_identified(cells)
        before = _read(connection, sample_id, sample.version)
        _check_signers(before, user, meaning)
        _insert(connection, sample, user, meaning, cells, recount(connection, sample, cells))
        is_complete = not needs_two or len(before) == 1
        if is_complete:
            locked = update(samples).where(samples.c.id == sample_id).values(state="signed")
            connection.execute(locked)
        return is_complete


def amend(store: Store, user: User, sample_id: str, reason: str) -> None:
    """Opens a signed sample as a new version. Raises RefusedError without a reason or the role."""
    reason = reason.strip()
    if not user.may("reviewer"):
        raise RefusedError("only a reviewer may amend what is signed")
    if not 0 < len(reason) <= LONGEST_REASON:
        raise RefusedError(f"an amendment needs a reason of up to {LONGEST_REASON} characters")
    with store.changing() as connection:
        sample = _find(connection, sample_id)
        if sample.state != "signed":
            raise RefusedError("only a signed sample can be amended")
        values = {"state": "in review", "version": sample.version + 1, "reason": reason}
        values["opened"] = ""  # its review begins anew
        connection.execute(update(samples).where(samples.c.id == sample_id).values(**values))
        version = sample.version + 1
        audit.append(connection, user.name, "amend", sample_id, version=version, reason=reason)


def list_signatures(connection: Connection, sample_id: str) -> list[Signature]:
    """All signatures of a sample, in order."""
    query = select(signatures).where(signatures.c.sample_id == sample_id).order_by(signatures.c.id)
    return [
        Signature(
            row.version,
            row.name,
            row.meaning,
            row.signed,
            row.reason,
            from_json(row.record, DifferentialCount),
        )
        for row in connection.execute(query)
    ]


def latest_signed(connection: Connection, sample: StoredSample) -> Signature | None:
    """The signature that locked the sample last; None where it is not signed now."""
    if sample.state != "signed":
        return None
    return _read(connection, sample.id, sample.version)[-1]


def signed_count(found: Sequence[Signature]) -> DifferentialCount:
    """The count that the last of these signed, whose method names all who signed it."""
    words = " ".join(signature.describe() for signature in found)
    count = found[-1].count
    return replace(count, method=count.method.replace(UNSIGNED, words))


def verify_signatures(connection: Connection) -> list[str]:
    """What is wrong with what was signed: records that were altered, or have no audit entry."""
    noted = {
        msgspec.json.decode(entry["detail"]).get("sha256")
        for entry in audit.read_entries(connection)
        if entry["action"] == "sign"
    }
    problems, seen = [], set()
    for row in connection.execute(select(signatures).order_by(signatures.c.id)):
        seen.add(row.sha256)
        facts = (row.sample_id, row.version, row.name, row.meaning, row.signed, row.reason)
        if _hash(facts, row.record, row.labels) != row.sha256:
            problems.append(f"signature {row.id} was altered")
        elif row.sha256 not in noted:
            problems.append(f"signature {row.id} is not in the audit trail")
    if noted - seen:
        problems.append(f"{len(noted - seen)} signatures of the audit trail are missing")
    return problems


def _insert(
    connection: Connection,
    sample: StoredSample,
    user: User,
    meaning: Meaning,
    cells: Sequence[ReviewedCell],
    count: DifferentialCount,
) -> None:
    content = to_json(count)
    labels = msgspec.json.encode([(cell.id, cell.machine, cell.counts_as) for cell in cells])
    signed = audit.now()
    facts = (sample.id, sample.version, user.name, meaning, signed, sample.reason)
    sha256 = _hash(facts, content, labels)
    connection.execute(
        insert(signatures).values(
            sample_id=sample.id,
            version=sample.version,
            user_id=user.id,
            name=user.name,
            meaning=meaning,
            signed=signed,
            reason=sample.reason,
            record=content,
            labels=labels,
            sha256=sha256,
            seconds=review_seconds(connection, sample.id, sample.opened),
        )
    )
    details = {"version": sample.version, "meaning": meaning, "sha256": sha256}
    audit.append(connection, user.name, "sign", sample.id, **details)


def _hash(facts: tuple[object, ...], count: bytes, labels: bytes) -> str:
    found = hashlib.sha256(msgspec.json.encode(facts))
    for content in (count, labels):
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()


def _check_identified(cells: Sequence[ReviewedCell]) -> None:
    unclear = sum(cell.counts_as == UNIDENTIFIED and not cell.label for cell in cells)
    if unclear:
        raise RefusedError(
            fill(
                "{n} {n?cell is|cells are} unidentified; name {n?it|them}, or label {n?it|them} as "
                "unidentified yourself",
                n=unclear,
            )
        )


def _check_signers(before: Sequence[Signature], user: User, meaning: Meaning) -> None:
    if any(found.meaning == meaning for found in before):
        raise RefusedError(f"a {meaning} has signed this version already")
    if any(found.name == user.name for found in before):
        raise RefusedError("you have signed this version already; somebody else must")


def _read(connection: Connection, sample_id: str, version: int) -> list[Signature]:
    found = list_signatures(connection, sample_id)
    return [signature for signature in found if signature.version == version]


def _find(connection: Connection, sample_id: str) -> StoredSample:
    sample = find_sample(connection, sample_id)
    if sample is None:
        raise RefusedError("there is no such sample")
    return sample
