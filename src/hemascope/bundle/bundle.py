"""Bundle: a folder with model.onnx and card.json; all that inference needs.

A bundle may hold another in its folder `fallback`: the fallback model, which predicts the
images that are unlike those the first was trained on.

`model.onnx` takes `images` uint8 (N,S,S,3) and gives `logits` (N,C), `features` (N,F),
`class_map` (N,C,h,w), `texture` (N,T) and `members` (N,M,C), all float32. Normalisation is inside.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from hemascope.classes import ClassSet
from hemascope.errors import BundleError
from hemascope.files import remove_torn, sha256_of, write_atomic
from hemascope.preprocess import InputSpec
from hemascope.records import RESEARCH_USE_ONLY, Proportion
from hemascope.serialization import from_json, to_json
from hemascope.uncertainty.model import UncertaintyModel

FORMAT = 2
MODEL_FILE, CARD_FILE, FALLBACK = "model.onnx", "card.json", "fallback"
FALLBACK_OF_FORMAT_1 = "elsewhere"


@dataclass(frozen=True)
class Metric:
    """A measured proportion and the images it was measured on."""

    measured_on: str
    name: str
    result: Proportion


@dataclass(frozen=True)
class Card:
    """What a model is, what it was trained and measured on, and how its predictions are read.

    `temperature` divides the logits before the softmax (1: as trained); it and `uncertainty` come
    from calibration. `model_sha256` is that of model.onnx. `recipe` is the training recipe, field
    by field, of an ensemble those that its members share. `fallback_sha256` is that of the
    fallback model, if there is one.
    `map_offset` is how many places further left and up lies what a place of a class map shows.
    `precision` is that of the convolutions, `fp32` or `int8`.
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
    format: int = FORMAT


@dataclass(frozen=True)
class Bundle:
    """A model's bytes and its card, checked against each other.

    `fallback` predicts the images that are unlike the training images by the OOD detector.
    """

    card: Card
    model: bytes = field(repr=False)
    fallback: Bundle | None = field(default=None, repr=False)


def pretrained_folder() -> Path:
    """The folder of the bundle that comes with the package."""
    return Path(str(files("hemascope") / "pretrained"))


def read_bundle(folder: Path | None = None) -> Bundle:
    """The bundle in a folder; by default, the one that comes with the package.

    Raises BundleError for one that is incomplete, damaged, of another format or altered.
    """
    folder = folder or pretrained_folder()
    try:
        card_bytes = (folder / CARD_FILE).read_bytes()
        model = (folder / MODEL_FILE).read_bytes()
    except OSError as error:
        name = Path(error.filename or folder).name
        raise BundleError(
            f"{folder}: not a bundle: cannot read {name} ({error.strerror}); a bundle is a folder "
            f"with {MODEL_FILE} and {CARD_FILE}"
        ) from None
    card = _read_card(folder / CARD_FILE, card_bytes)
    if sha256_of(model) != card.model_sha256:
        raise BundleError(
            f"{folder}: {MODEL_FILE} is not the file that {CARD_FILE} describes "
            "(its SHA-256 differs); copy or export the bundle again"
        )
    if card.fallback_sha256 is None:
        return Bundle(card, model)
    inner = folder / FALLBACK if (folder / FALLBACK).exists() else folder / FALLBACK_OF_FORMAT_1
    other = read_bundle(inner)
    if other.card.model_sha256 != card.fallback_sha256:
        raise BundleError(
            f"{inner}: not the network that {folder / CARD_FILE} names; "
            "copy or calibrate the bundle again"
        )
    return Bundle(card, model, other)


def replace_model(bundle: Bundle, model: bytes) -> Bundle:
    """The bundle with another graph, without a second network.

    It is no longer calibrated, and what was measured of the old graph is left out.
    """
    card = replace(
        bundle.card,
        model_sha256=sha256_of(model),
        temperature=1.0,
        uncertainty=None,
        metrics=(),
        fallback_sha256=None,
    )
    return Bundle(card, model)


def add_fallback(bundle: Bundle, other: Bundle) -> Bundle:
    """The calibrated bundle, with another's network as its fallback model.

    Raises BundleError where one is not calibrated, or they differ in classes or input.
    """
    for member in (bundle, other):
        if member.card.uncertainty is None:
            raise BundleError(
                f"the bundle '{member.card.name}' is not calibrated; calibrate it first"
            )
    if (bundle.card.classes, bundle.card.input) != (other.card.classes, other.card.input):
        raise BundleError(
            f"'{other.card.name}' has other classes or another input than '{bundle.card.name}'; "
            "networks of one bundle must share both"
        )
    card = replace(bundle.card, fallback_sha256=other.card.model_sha256)
    return Bundle(card, bundle.model, other)


def _read_card(path: Path, text: bytes) -> Card:
    try:
        card = json.loads(text)
    except ValueError:
        raise BundleError(f"{path}: not valid JSON; copy or export the bundle again") from None
    card_format = card.get("format") if isinstance(card, dict) else None
    if card_format == 1:
        text = to_json(_translate_format_1(card))
    elif card_format != FORMAT:
        raise BundleError(
            f"{path}: bundle format {card_format!r} is not known here (this version reads "
            f"1 and {FORMAT}); use the Hemascope version that wrote it"
        )
    try:
        return from_json(text, Card)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None


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
    return card | {"format": FORMAT}


def _rename_keys(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Its files, each written whole; the card last, so that a half-written bundle is refused."""
    if bundle.fallback is not None:
        write_bundle(bundle.fallback, folder / FALLBACK)
    for name, content in ((MODEL_FILE, bundle.model), (CARD_FILE, to_json(bundle.card))):
        remove_torn(folder / name)
        write_atomic(folder / name, content)
