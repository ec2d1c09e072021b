"""Hemascope classifies single blood cells in microscope images.

Everything in the package stands somewhere on one line:

    cell.jpg → manifest row → InputSpec (S,S,3) uint8 → model → logits (C,)
             → calibrated probabilities (C,) → Prediction → Report

For research use only; not a medical device.
"""

from importlib.metadata import version

from hemascope.bundle.classifier import Classifier
from hemascope.classes import BLOOD_CELLS, CellClass, ClassSet
from hemascope.preprocess import ImageError, InputSpec
from hemascope.results import Evaluation, Prediction

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
