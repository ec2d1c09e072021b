"""Card: what a model is and how its outputs are read; written as card.json.

The arrays of an UncertaintyModel lie in `uncertainty.safetensors` beside card.json, so that people
can read the card. Cards of format 1, which hold these arrays themselves, are read as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from hemascope.arrays import Float32Array
from hemascope.classes import ClassSet
from hemascope.errors import BundleError
from hemascope.files import remove_torn, sha256_of, write_atomic
from hemascope.preprocess import InputSpec
from hemascope.records import RESEARCH_USE_ONLY, Proportion
from hemascope.serialization import from_json, split_arrays, to_json
from hemascope.uncertainty.model import UncertaintyModel

FORMAT = 2
CARD_FILE, UNCERTAINTY_FILE = "card.json", "uncertainty.safetensors"
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
    from calibration. `model_sha256` is that of model.onnx, and `outputs` are its names for the
    outputs that OUTPUTS lists, in that order. `recipe` is the training recipe, field by field; of
    an ensemble, the fields that its members share. `fallback_sha256` is that of the fallback
    model, if there is one. A class map is shifted: the value in row i and column j belongs to row
    i - `map_offset` and column j - `map_offset`, in steps of the map. `precision` is that of the
    convolutions, `fp32` or `int8`.
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
    metrics: tuple[Metric, ...] = ()
    licence: str = "Apache-2.0"
    intended_use: str = RESEARCH_USE_ONLY
    provenance: dict[str, str] = field(default_factory=dict)
    fallback_sha256: str | None = None
    map_offset: float = 0.5
    precision: str = "fp32"
    outputs: tuple[str, ...] = OUTPUTS
    format: int = FORMAT


def read_card(folder: Path) -> Card:
    """The card in a bundle's folder.

    Raises OSError for a file that cannot be read, and BundleError for one that is damaged, of an
    unknown format or altered.
    """
    path = folder / CARD_FILE
    text = path.read_bytes()
    try:
        card = json.loads(text)
    except ValueError:
        raise BundleError(f"{path}: not valid JSON; copy or export the bundle again") from None
    card_format = card.get("format") if isinstance(card, dict) else None
    if card_format not in (1, FORMAT):
        raise BundleError(
            f"{path}: bundle format {card_format!r} is not known here (this version reads "
            f"1 and {FORMAT}); use the Hemascope version that wrote it"
        )
    if card_format == 1:
        text = to_json(_translate_format_1(card))
    arrays = _read_arrays(folder, card.get("uncertainty_sha256"))
    try:
        return from_json(text, Card, arrays)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None


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


def _read_arrays(folder: Path, sha256: str | None) -> dict[str, Float32Array]:
    """The arrays beside a card that names their file's SHA-256; none for another card."""
    if sha256 is None:
        return {}
    content = (folder / UNCERTAINTY_FILE).read_bytes()
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
