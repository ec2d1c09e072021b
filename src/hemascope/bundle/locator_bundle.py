"""LocatorBundle: a folder with locator.onnx and card.json, all that finding cells on fields needs.

`locator.onnx` takes `images` uint8 (N,H,W,3), H and W multiples of 16, and gives `maps` float32
(N,K+4,H/4,W/4): the logits of the centres of each of the K kinds, and the boxes, see `LocatorCard`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hemascope.arrays import Float32Array, ImageArray
from hemascope.bundle.bundle import pretrained_folder
from hemascope.bundle.card import CARD_FILE, check_graph_hash, read_file
from hemascope.bundle.card_check import check_nesting
from hemascope.bundle.graph_check import check_graph
from hemascope.bundle.session import Session
from hemascope.errors import BundleError
from hemascope.files import write_atomic
from hemascope.processors import choose_threads
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serialization import from_json, to_json

LOCATOR_FILE, LOCATOR = "locator.onnx", "locator"
FORMAT = 1
LARGEST_CARD, LARGEST_LOCATOR = 2**20, 2**26  # bytes
CHECKED_SIZE = 640  # pixels a side of the images that a graph's sizes are worked out for
STRIDES, DIAMETERS = (1, 32), (8.0, 200.0)


@dataclass(frozen=True)
class LocatorCard:
    """What a locator is, what it was trained and measured on, and how its maps are read.

    `kinds` are those of the first maps, and `thresholds` the least score that a cell of each must
    have. Red cells should be `red_diameter` pixels wide in the images, and a place of the maps
    stands for `stride` pixels. The last four maps are the box of a cell whose centre is there: how
    far that lies from the middle of the place, x and y in places, and the natural logarithms of its
    width and height over `typical` pixels. `figures` are what was measured, by name.
    """

    name: str
    kinds: tuple[str, ...]
    thresholds: dict[str, float]
    red_diameter: float
    stride: int
    typical: float
    model_sha256: str
    parameters: int
    training_data: str
    recipe: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    licence: str = "Apache-2.0"
    intended_use: str = RESEARCH_USE_ONLY
    provenance: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT


@dataclass(frozen=True)
class LocatorBundle:
    """A locator's graph and its card, checked against each other."""

    card: LocatorCard
    model: bytes = field(repr=False)


def read_locator(folder: Path | None = None) -> LocatorBundle:
    """The locator in a folder; by default, the one that comes with the package.

    Raises BundleError for one that is incomplete, damaged, of another format or altered.
    """
    folder = folder or pretrained_folder() / LOCATOR
    try:
        text = read_file(folder / CARD_FILE, LARGEST_CARD)
        model = read_file(folder / LOCATOR_FILE, LARGEST_LOCATOR)
    except OSError as error:
        name = Path(error.filename or folder).name
        raise BundleError(
            f"{folder}: not a locator: cannot read {name} ({error.strerror}); a locator is a "
            f"folder with {LOCATOR_FILE} and {CARD_FILE}"
        ) from None
    try:
        check_nesting(text)
        card = from_json(text, LocatorCard)
        check_locator_card(card)
    except ValueError as error:
        raise BundleError(f"{folder / CARD_FILE}: {error}") from None
    check_graph_hash(folder, LOCATOR_FILE, model, card.model_sha256)
    return LocatorBundle(card, model)


def write_locator(bundle: LocatorBundle, folder: Path) -> None:
    """Writes both files, the card last. Raises BundleError for a card that would not be read."""
    try:
        check_locator_card(bundle.card)
    except ValueError as error:
        raise BundleError(f"'{bundle.card.name}' is not written: {error}") from None
    write_atomic(folder / LOCATOR_FILE, bundle.model)
    write_atomic(folder / CARD_FILE, to_json(bundle.card))


def check_locator_card(card: LocatorCard) -> None:
    """Raises ValueError, which names the field, for a value that cannot be."""
    if card.format != FORMAT:
        raise ValueError(f"locator format {card.format} is not known here, only {FORMAT}")
    if not card.kinds or set(card.thresholds) != set(card.kinds):
        raise ValueError("thresholds must name each of the kinds")
    limits = {f"thresholds.{kind}": (0.0, 1.0, value) for kind, value in card.thresholds.items()}
    limits["stride"] = (*STRIDES, card.stride)
    limits["red_diameter"] = (*DIAMETERS, card.red_diameter)
    limits["typical"] = (*DIAMETERS, card.typical)
    for name, (low, high, value) in limits.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}, not {value:g}")


class LocatorEngine:
    """A locator's graph, loaded on onnxruntime. Threads can share it.

    `threads` is how many processors it may use, by default as many as the process may. Raises
    BundleError for a graph that cannot be loaded, or does not fit the card.
    """

    def __init__(self, bundle: LocatorBundle, threads: int | None = None) -> None:
        self.card, self.threads = bundle.card, choose_threads(threads)
        check_graph(bundle.model, CHECKED_SIZE)
        try:
            self._session = Session(bundle.model, self.threads)
        except Exception as error:  # onnxruntime has no common error class
            raise BundleError(f"{LOCATOR_FILE} cannot be loaded: {_first_line(error)}") from None

    def maps(self, images: ImageArray) -> Float32Array:
        """(N,H,W,3) uint8, H and W multiples of 16 → maps (N,K+4,H/stride,W/stride).

        Raises BundleError where the graph fails, or gives other shapes or no finite numbers.
        """
        try:
            (maps,) = self._session.run(["maps"], {"images": images})
        except Exception as error:  # onnxruntime has no common error class
            raise BundleError(
                f"'{self.card.name}' cannot be computed: {_first_line(error)}; export it again"
            ) from None
        n, height, width = images.shape[:3]
        stride = self.card.stride
        wanted = (n, len(self.card.kinds) + 4, height // stride, width // stride)
        if maps.shape != wanted:
            raise BundleError(
                f"'{self.card.name}' gave maps of shape {maps.shape}, not {wanted}, as {CARD_FILE} "
                "says; export it again"
            )
        if not np.isfinite(maps).all():
            raise BundleError(
                f"'{self.card.name}' gave maps that are not finite numbers: its weights are "
                "damaged; use another locator"
            )
        return np.asarray(maps)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
