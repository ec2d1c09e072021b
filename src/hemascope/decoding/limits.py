"""How much one image may cost, and all that are decoded at once by the threads of a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from hemascope.errors import ImageError

Reserve: TypeAlias = Callable[[int], None]
"""Called once per image with the bytes that decoding it takes, before it is decoded."""

MAX_PIXELS = 100_000_000
MAX_PIXELS_VARIABLE = "HEMASCOPE_MAX_PIXELS"
BYTES_PER_PIXEL = 5  # of MAX_PIXELS: an RGB image takes 4, so 500 MB hold the largest
ESTIMATED = 0.9  # of that much: what the header tells; the rest is what decoders take beside
MAX_SEGMENTS = 65_536  # strips or tiles of a TIFF; a million took 25 s
MAX_METADATA = 64_000_000  # bytes of one file


def max_pixels() -> int:
    """The limit on an image's pixels: of the environment variable, or MAX_PIXELS.

    An environment variable, so that worker processes and their libraries have the same limit.
    Raises ValueError for one that is not a positive whole number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if text is None:
        return MAX_PIXELS
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"{MAX_PIXELS_VARIABLE} must be a positive whole number, not {text!r}")
    return int(text)


def set_max_pixels(number: int) -> None:
    """Sets the limit for this process and those that it starts. Raises ValueError below 1."""
    if number < 1:
        raise ValueError(f"--max-pixels must be a positive whole number, not {number}")
    os.environ[MAX_PIXELS_VARIABLE] = str(number)


def check_size(width: int, height: int) -> None:
    """Raises ImageError for an image without pixels, or with more than the limit."""
    if width <= 0 or height <= 0:
        raise ImageError(f"damaged image: its header says {width}×{height} pixels")
    if width * height > max_pixels():
        raise ImageError(
            f"too large: {width}×{height} pixels, the limit is {max_pixels():,}; "
            "raise it with --max-pixels"
        )


def max_cost() -> int:
    """The bytes that decoding may take, as they are worked out from the headers."""
    return int(ESTIMATED * BYTES_PER_PIXEL * max_pixels())


def check_cost(cost: int) -> None:
    """Raises ImageError for more bytes than one image may take."""
    limit = max_cost()
    if cost > limit:
        raise ImageError(
            f"too large: it takes about {cost / 1e6:,.0f} MB to decode, the limit is "
            f"{limit / 1e6:,.0f} MB; raise it with --max-pixels"
        )


class _Budget:
    """The bytes that all threads' decoding may take together."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = 0

    def take(self, cost: int, limit: int) -> None:
        """Waits until the bytes are free. One image alone may always go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._held == 0 or self._held + cost <= limit)
            self._held += cost

    def give_back(self, cost: int) -> None:
        with self._changed:
            self._held -= cost
            self._changed.notify_all()


_budget = _Budget()


@contextmanager
def share_memory() -> Iterator[Reserve]:
    """Gives a Reserve; what it reserved is free again at the end.

    Reserving waits for other threads' images, and raises ImageError for more than one image may
    cost. Raises ValueError as `max_pixels` does.
    """
    limit = max_cost()
    with ExitStack() as held:

        def reserve(cost: int) -> None:
            check_cost(cost)
            budget = _budget
            budget.take(cost, limit)
            held.callback(budget.give_back, cost)

        yield reserve


def _start_anew() -> None:
    """A forked child has none of its parent's threads, and so none of their images."""
    global _budget
    _budget = _Budget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
