"""How long a review takes: from when somebody opens a sample to the signature, without pauses."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

from sqlalchemy import Connection, select, update

from hemascope.serve.store import audit
from hemascope.serve.store.database import Store
from hemascope.serve.store.schema import audit_trail, samples

PAUSE = 300.0  # seconds; a longer time between two actions counts as so many


def mark_opened(store: Store, sample_id: str) -> None:
    """Notes when somebody who may change a sample looks at it for the first time."""
    with store.changing() as connection:
        connection.execute(
            update(samples)
            .where(samples.c.id == sample_id, samples.c.opened == "")
            .values(opened=audit.now())
        )


def review_seconds(connection: Connection, sample_id: str, opened: str) -> float | None:
    """Seconds from the first look until now, of which long pauses count in part; None unopened."""
    if not opened:
        return None
    query = select(audit_trail.c.at).where(
        audit_trail.c.subject == sample_id, audit_trail.c.at >= opened
    )
    moments = sorted([opened, *connection.execute(query).scalars(), audit.now()])
    times = [datetime.fromisoformat(moment).timestamp() for moment in moments]
    return sum(min(PAUSE, later - earlier) for earlier, later in pairwise(times))
