"""A station to try: a sample of drawn fields, and somebody who may do everything."""

from __future__ import annotations

import io
import secrets

from PIL import Image

from hemascope.data.synthetic import PNG_LEVEL
from hemascope.data.synthetic_fields import draw_smear
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
    given = (
        NewField(f"field_{number:02d}.png", _to_png(field.image))
        for number, field in enumerate(draw_smear(FIELDS))
    )
    add_sample(store, User(1, DEMO, "administrator"), "Drawn smear", given)
    return password


def _to_png(image: Image.Image) -> bytes:
    """Hardly compressed, which takes a third of the time."""
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=PNG_LEVEL)
    return content.getvalue()
