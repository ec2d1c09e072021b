"""Card: what a model is and how its outputs are read; written as card.json.

The arrays of an UncertaintyModel, a MorphologyModel and KnownFeatures lie in the file
`uncertainty.safetensors` beside card.json, so that people can read the card. Cards of format 1,
which hold these arrays themselves, are read as well.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from hemascope.arrays import Float32Array
from hemascope.bundle.adaptation import Adaptation
from hemascope.bundle.card_check import check_card, check_nesting, check_numbers
from hemascope.classes import ClassSet
from hemascope.errors import BundleError
from hemascope.files import remove_torn, sha256_of, write_atomic
from hemascope.preprocess import InputSpec
from hemascope.records import RESEARCH_USE_ONLY, Proportion
from hemascope.serialization import from_json, split_arrays, to_json
from hemascope.uncertainty.confusion import Confusion
from hemascope.uncertainty.known_features import KnownFeatures
from hemascope.uncertainty.model import UncertaintyModel
from hemascope.uncertainty.morphology import MorphologyModel

FORMAT = 2
CARD_FILE, UNCERTAINTY_FILE = "card.json", "uncertainty.safetensors"
LARGEST_CARD, LARGEST_ARRAYS = 2**24, 2**28  # bytes
OUTPUTS = ("logits", "features", "class_map", "style_statistics", "members")
OUTPUTS_OF_FORMAT_1 = ("logits", "features", "class_map", "texture", "members")


@dataclass(frozen=True)
class Metric:
    """A measured proportion and the images it was measured on."""

    measured_on: str
    name: str
    result: Proportion


@dataclass(frozen=True)
class Card:
    """What a model is, what it was trained and measured on, and how its outputs are read.

    `temperature` divides the logits before the softmax (1: as trained); it and `uncertainty` come
    from calibration. `confusion` says how labelled cells that training never saw are named; a
    differential count is corrected by it. `model_sha256` is that of model.onnx, and `outputs` are
    its names for the outputs that OUTPUTS lists, in that order. `recipe` is the training recipe,
    field by field; of an ensemble, the fields that its members share. `fallback_sha256` is that of
    the fallback model, if there is one. A class map is shifted: the value in row i and column j
    belongs to row i - `map_offset` and column j - `map_offset`, in steps of the map. `precision` is
    that of the convolutions, `fp32` or `int8`. `columns` are the graph's logits that belong to the
    `classes`, in order; None where the graph has no others. `adaptation` is what an adapted bundle
    keeps of its cells. `agreement_error` is how far the share of cells that are named alike in all
    symmetries of the image was from the accuracy, in the mean of laboratories that were left out.
    `morphology` tells attributes and subtypes. `known_features` are what cells of each class look
    like to the network, for `adapt`.
    """

    name: str
    classes: ClassSet
    input: InputSpec
    architecture: str
    parameters: int
    model_sha256: str
    training_data: str
    recipe: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    uncertainty: UncertaintyModel | None = None
    confusion: Confusion | None = None
    metrics: tuple[Metric, ...] = ()
    licence: str = "Apache-2.0"
    intended_use: str = RESEARCH_USE_ONLY
    provenance: dict[str, str] = field(default_factory=dict)
    fallback_sha256: str | None = None
    map_offset: float = 0.5
    precision: str = "fp32"
    outputs: tuple[str, ...] = OUTPUTS
    columns: tuple[int, ...] | None = None
    adaptation: Adaptation | None = None
    agreement_error: float | None = None
    morphology: MorphologyModel | None = None
    known_features: KnownFeatures | None = None
    format: int = FORMAT


def read_card(folder: Path) -> Card:
    """The card in a bundle's folder.

    Raises OSError for a file that cannot be read, and BundleError for one that is damaged, of an
    unknown format or altered.
    """
    path = folder / CARD_FILE
    text = read_file(path, LARGEST_CARD)
    tree = _parse(path, text)
    card_format = tree.get("format")
    if type(card_format) is not int or card_format not in (1, FORMAT):
        raise BundleError(
            f"{path}: bundle format {card_format!r} is not known here (this version reads "
            f"1 and {FORMAT}); use the Hemascope version that wrote it"
        )
    try:
        if card_format == 1:
            text = to_json(_translate_format_1(tree))
        card = from_json(text, Card, _read_arrays(folder, tree.get("uncertainty_sha256")))
        check_card(card)
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None
    return card


def read_file(path: Path, most: int) -> bytes:
    """A file of a bundle, of `most` bytes at most.

    Raises OSError for one that cannot be read, and BundleError for one that is larger, or that is
    no file but a device or a pipe.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path}: not a file, but a device or a pipe; export the bundle again")
    if status.st_size > most:
        raise BundleError(f"{path}: {status.st_size:,} bytes; such a file has at most {most:,}")
    return path.read_bytes()


def check_graph_hash(folder: Path, name: str, graph: bytes, sha256: str) -> None:
    """Raises BundleError for a graph that is not the file that the card beside it describes."""
    if sha256_of(graph) != sha256:
        raise BundleError(
            f"{folder}: {name} is not the file that {CARD_FILE} describes (its SHA-256 differs); "
            "copy or export it again"
        )


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    """The JSON of a card, whose numbers are finite and whose values are not nested too deeply."""
    try:
        check_nesting(text)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None
    try:
        tree = json.loads(text)
    except ValueError:
        raise BundleError(f"{path}: not valid JSON; copy or export the bundle again") from None
    if not isinstance(tree, dict):
        raise BundleError(f"{path}: not a card; copy or export the bundle again")
    try:
        check_numbers(tree)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None
    return tree


def write_card(card: Card, folder: Path) -> None:
    """Writes the card's arrays and then card.json, each whole or not at all."""
    tree, arrays = split_arrays(card)
    for name in (UNCERTAINTY_FILE, CARD_FILE):
        remove_torn(folder / name)
    if arrays:
        content = save(arrays)
        write_atomic(folder / UNCERTAINTY_FILE, content)
        tree["uncertainty_sha256"] = sha256_of(content)
    write_atomic(folder / CARD_FILE, to_json(tree))
    if not arrays:
        (folder / UNCERTAINTY_FILE).unlink(missing_ok=True)  # of the bundle that was here before


def _read_arrays(folder: Path, sha256: object) -> dict[str, Float32Array]:
    """The arrays beside a card that names their file's SHA-256; none for another card."""
    if sha256 is None:
        return {}
    if not isinstance(sha256, str):
        raise ValueError("uncertainty_sha256 must be a text")
    content = read_file(folder / UNCERTAINTY_FILE, LARGEST_ARRAYS)
    if sha256_of(content) != sha256:
        raise BundleError(
            f"{folder}: {UNCERTAINTY_FILE} is not the file that {CARD_FILE} describes "
            "(its SHA-256 differs); copy or calibrate the bundle again"
        )
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise BundleError(f"{folder / UNCERTAINTY_FILE}: {error}") from None


def _translate_format_1(card: dict[str, Any]) -> dict[str, Any]:
    """A card of format 1 in the words of format 2; what is not renamed stays as it is."""
    card = _rename_keys(
        card,
        {"figures": "metrics", "trust": "uncertainty", "elsewhere_sha256": "fallback_sha256"},
    )
    if isinstance(card.get("uncertainty"), dict):
        card["uncertainty"] = _rename_keys(card["uncertainty"], {"unlike": "ood_detector"})
        detector = card["uncertainty"].get("ood_detector")
        if isinstance(detector, dict):
            card["uncertainty"]["ood_detector"] = _rename_keys(
                detector, {"texture": "style", "texture_limit": "style_limit"}
            )
    return card | {"format": FORMAT, "outputs": OUTPUTS_OF_FORMAT_1}


def _rename_keys(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}
