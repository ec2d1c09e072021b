"""A station to try: a sample of drawn fields, and somebody who may do everything."""

from __future__ import annotations

import secrets
from pathlib import Path
from tempfile import TemporaryDirectory

from hemascope.data.synthetic_fields import draw_fields
from hemascope.serve.store.database import Store
from hemascope.serve.store.people import User, add_user
from hemascope.serve.store.samples import NewField, add_sample

DEMO, FIELDS = "demo", 3


def fill_demo(store: Store) -> str:
    """Adds a user and a sample of drawn fields to an empty store, and gives the password.

    The sample's cells are located when the station runs.
    """
    password = secrets.token_urlsafe(12)
    add_user(store, DEMO, password, "administrator", by="demo")
    with TemporaryDirectory(prefix="hemascope-demo-") as folder:
        paths = draw_fields(Path(folder) / "fields", FIELDS)
        given = [NewField(path.name, path.read_bytes()) for path in paths]
    add_sample(store, User(1, DEMO, "administrator"), "Drawn smear", given)
    return password
