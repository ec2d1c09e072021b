"""Checks what a card says of attributes and subtypes; each error is a sentence with the field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hemascope.arrays import FloatArray
from hemascope.uncertainty.confusion import Confusion
from hemascope.uncertainty.morphology import Looks, MorphologyModel, SoftmaxLayer

TEMPERATURES = (1e-4, 1e4)
COUNT = (0, 10**12)


def check_morphology(model: MorphologyModel, class_names: Sequence[str]) -> None:
    """Raises ValueError for a value that is out of range or does not fit the others."""
    if model.images < 1:
        raise ValueError("morphology.images must be at least 1")
    if bool(model.attributes) != (model.looks is not None):
        raise ValueError("morphology must have attributes and looks, or neither")
    layers = {"attributes": model.attributes, "subtypes": model.subtypes}
    widths = {layer.weight.shape[-1:] for kind in layers.values() for layer in kind}
    if len(widths) != 1:
        raise ValueError("morphology must have layers, all of one number of features")
    for kind, found in layers.items():
        if len({layer.name for layer in found}) != len(found):
            raise ValueError(f"morphology.{kind} must have different names")
        for number, layer in enumerate(found):
            _check_layer(f"morphology.{kind}.{number}", layer)
    values = [value for layer in model.subtypes for value in layer.values]
    if len(set(values)) != len(values):
        raise ValueError("morphology.subtypes must have different values in all classes")
    if model.looks is not None:
        _check_looks(model.looks, sum(len(layer.values) for layer in model.attributes))
    named = {layer.name for layer in model.subtypes}
    named |= set(model.looks.classes if model.looks is not None else ())
    if unknown := sorted(named - set(class_names)):
        raise ValueError(f"morphology names '{unknown[0]}', which is no class of the card")
    if model.confusion is not None:
        told = len(model.names_told(class_names))
        check_confusion("morphology.confusion", model.confusion, told)


def check_confusion(name: str, confusion: Confusion, names: int) -> None:
    """Raises ValueError for a confusion that is not of so many names, or counts no cells."""
    rows = (*confusion.counts, confusion.unidentified)
    if len(rows) != names + 1 or any(len(row) != names for row in rows):
        raise ValueError(
            f"{name} must have {names} rows of {names} counts, one per name that a cell can get, "
            f"and {names} counts of unidentified cells"
        )
    low, high = COUNT
    if not all(low <= count <= high for row in rows for count in row):
        raise ValueError(f"{name} must be from {low} to {high:,}")


def _check_layer(name: str, layer: SoftmaxLayer) -> None:
    several = len(layer.values) > 1 and len(set(layer.values)) == len(layer.values)
    if not several or not all(layer.values):
        raise ValueError(f"{name}.values must be two or more different texts")
    if layer.weight.ndim != 2 or not layer.weight.size:
        raise ValueError(f"{name}.weight must have two dimensions, not shape {layer.weight.shape}")
    shapes = {"weight": (len(layer.values), layer.weight.shape[1]), "bias": (len(layer.values),)}
    for part, shape in shapes.items():
        _check_array(f"{name}.{part}", getattr(layer, part), shape)
    low, high = TEMPERATURES
    if not low <= layer.temperature <= high:
        raise ValueError(f"{name}.temperature must be from {low:g} to {high:g}")


def _check_looks(looks: Looks, values: int) -> None:
    if len(set(looks.classes)) != len(looks.classes) or not looks.classes:
        raise ValueError("morphology.looks.classes must be different names")
    _check_array("morphology.looks.chances", looks.chances, (len(looks.classes), values))
    if not (looks.chances > 0).all() or not (looks.chances <= 1).all():
        raise ValueError("morphology.looks.chances must be above 0 and at most 1")
    if not 0 <= looks.least <= 1:
        raise ValueError("morphology.looks.least must be from 0 to 1")


def _check_array(name: str, array: FloatArray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must be of shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must hold finite numbers only")
