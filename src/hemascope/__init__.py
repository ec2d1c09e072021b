"""Hemascope classifies single blood cells in microscope images.

Everything in the package stands somewhere on one line:

    cell.jpg → manifest row → InputSpec (S,S,3) uint8 → model → logits (C,)
             → calibrated probabilities (C,) → Prediction → Report

For research use only; not a medical device.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemascope.classes import BLOOD_CELLS, CellClass, ClassSet
    from hemascope.inference.classifier import Classifier
    from hemascope.preprocess import ImageError, InputSpec
    from hemascope.records import Evaluation, Prediction

__version__ = version("hemascope")

__all__ = [
    "BLOOD_CELLS",
    "CellClass",
    "ClassSet",
    "Classifier",
    "Evaluation",
    "ImageError",
    "InputSpec",
    "Prediction",
    "__version__",
]

# Each is imported when it is first asked for, so that `import hemascope` costs next to nothing.
_HOMES = {
    "BLOOD_CELLS": "hemascope.classes",
    "CellClass": "hemascope.classes",
    "ClassSet": "hemascope.classes",
    "Classifier": "hemascope.inference.classifier",
    "Evaluation": "hemascope.records",
    "ImageError": "hemascope.preprocess",
    "InputSpec": "hemascope.preprocess",
    "Prediction": "hemascope.records",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hemascope' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
