"""Images → PNG."""

from __future__ import annotations

import io

from PIL import Image


def to_png(image: Image.Image) -> bytes:
    """An image as a PNG file, without metadata."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
