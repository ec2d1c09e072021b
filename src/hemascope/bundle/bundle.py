"""Bundle: a folder with model.onnx, card.json and, if calibrated, uncertainty.safetensors.

It is all that inference needs. A bundle may hold another in its folder `fallback`: the fallback
model, which predicts the images that are unlike the training images of the first.

`model.onnx` takes `images` uint8 (N,S,S,3) and gives `logits` (N,C), `features` (N,F), `class_map`
(N,C,h,w), `style_statistics` (N,T) and `members` (N,M,C), all float32. Normalisation is inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from hemascope.bundle.card import (
    CARD_FILE,
    Card,
    check_graph_hash,
    read_card,
    read_file,
    write_card,
)
from hemascope.bundle.card_check import check_card
from hemascope.errors import BundleError
from hemascope.files import remove_torn, sha256_of, write_atomic

MODEL_FILE, FALLBACK = "model.onnx", "fallback"
LARGEST_MODEL = 2**30  # bytes
FALLBACK_OF_FORMAT_1 = "elsewhere"


@dataclass(frozen=True)
class Bundle:
    """A model's bytes and its card, checked against each other.

    `fallback`, a calibrated bundle, predicts the images that the OOD detector finds unlike the
    training images. Raises BundleError for one that is not calibrated.
    """

    card: Card
    model: bytes = field(repr=False)
    fallback: Bundle | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.fallback is not None and self.fallback.card.uncertainty is None:
            raise BundleError(
                f"'{self.fallback.card.name}' is not calibrated and cannot be a fallback model; "
                "calibrate it first"
            )


def pretrained_folder() -> Path:
    """The folder of the bundle that comes with the package."""
    return Path(str(files("hemascope") / "pretrained"))


def list_bundles() -> list[str]:
    """The names of the bundles that come with the package.

    Returns
    -------
    list of str
        Each can be given to `Classifier.from_pretrained`. The first is the default, and those
        after it are the fallback models inside it.

    Raises
    ------
    BundleError
        Where a file of the package is damaged.

    Examples
    --------
    >>> import hemascope
    >>> hemascope.list_bundles()
    ['hemascope-pbc-5', 'hemascope-laboratories-2']
    """
    return list(_shipped_folders())


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle that comes with the package, by its name, or else the folder `name`.

    Raises BundleError where there is neither.
    """
    shipped = _shipped_folders()
    if str(name) in shipped:
        return shipped[str(name)]
    if not Path(name).is_dir():
        raise BundleError(
            f"'{name}' is no folder, and no bundle of that name comes with the package; there are "
            f"{', '.join(shipped)}"
        )
    return Path(name)


def _shipped_folders() -> dict[str, Path]:
    folders = (pretrained_folder(), pretrained_folder() / FALLBACK)
    return {read_card(folder).name: folder for folder in folders}


def read_bundle(folder: Path | None = None) -> Bundle:
    """The bundle in a folder; by default, the one that comes with the package.

    Raises BundleError for one that is incomplete, damaged, of another format or altered.
    """
    folder = folder or pretrained_folder()
    bundle = _read_alone(folder)
    if bundle.card.fallback_sha256 is None:
        return bundle
    inner = folder / FALLBACK if (folder / FALLBACK).exists() else folder / FALLBACK_OF_FORMAT_1
    other = _read_alone(inner)
    if other.card.fallback_sha256 is not None:
        raise BundleError(
            f"{inner}: a fallback model cannot have a fallback model of its own; "
            "copy or calibrate the bundle again"
        )
    if other.card.model_sha256 != bundle.card.fallback_sha256:
        raise BundleError(
            f"{inner}: not the network that {folder / CARD_FILE} names; "
            "copy or calibrate the bundle again"
        )
    if (bundle.card.classes, bundle.card.input) != (other.card.classes, other.card.input):
        raise BundleError(f"{inner}: other classes or another input than {folder / CARD_FILE} says")
    return Bundle(bundle.card, bundle.model, other)


def _read_alone(folder: Path) -> Bundle:
    """The bundle in a folder, without its fallback model."""
    try:
        card = read_card(folder)
        model = read_file(folder / MODEL_FILE, LARGEST_MODEL)
    except OSError as error:
        name = Path(error.filename or folder).name
        raise BundleError(
            f"{folder}: not a bundle: cannot read {name} ({error.strerror}); a bundle is a folder "
            f"with {MODEL_FILE} and {CARD_FILE}"
        ) from None
    check_graph_hash(folder, MODEL_FILE, model, card.model_sha256)
    return Bundle(card, model)


def replace_model(bundle: Bundle, model: bytes) -> Bundle:
    """The bundle with another graph, and without a fallback model.

    It is not calibrated, and its card has no metrics: both belonged to the old graph.
    """
    card = replace(
        bundle.card,
        model_sha256=sha256_of(model),
        temperature=1.0,
        uncertainty=None,
        confusion=None,
        metrics=(),
        fallback_sha256=None,
        adaptation=None,
        agreement_error=None,
        morphology=None,
        known_features=None,
    )
    return Bundle(card, model)


def add_fallback(bundle: Bundle, other: Bundle) -> Bundle:
    """The calibrated bundle, with another's network as its fallback model.

    A fallback model of the other's own is left out: nothing would ask it.
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
    alone = Bundle(replace(other.card, fallback_sha256=None), other.model)
    return Bundle(card, bundle.model, alone)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Writes the bundle's files, each whole; the card last, so that half a bundle is refused.

    Raises BundleError for a card that would not be read again, before anything is written.
    """
    try:
        check_card(bundle.card)
    except ValueError as error:
        raise BundleError(f"'{bundle.card.name}' is not written: {error}") from None
    if bundle.fallback is not None:
        write_bundle(bundle.fallback, folder / FALLBACK)
    remove_torn(folder / MODEL_FILE)
    write_atomic(folder / MODEL_FILE, bundle.model)
    write_card(bundle.card, folder)
