"""ImageError: what every part of the decoding raises."""

from __future__ import annotations


class ImageError(ValueError):
    """An image that cannot be used; its text says what is wrong with it, without the path."""
