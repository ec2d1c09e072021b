"""Hemascope classifies single blood cells in microscope images.

Everything in the package stands somewhere on one line:

    field.jpg → located cells ┐
    cell.jpg → manifest row → InputSpec (S,S,3) uint8 → model → logits (C,)
             → calibrated probabilities (C,) → Prediction → Report

For research use only; not a medical device.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemascope.batch.table import to_frame
    from hemascope.bundle.bundle import list_bundles
    from hemascope.bundle.restrict import restrict_classes
    from hemascope.classes import BLOOD_CELLS, CellClass, ClassSet
    from hemascope.data.manifest import Manifest
    from hemascope.data.open_manifest import open_manifest
    from hemascope.errors import BundleError, HemascopeError, ImageError, ManifestError
    from hemascope.evaluation.evaluate import evaluate
    from hemascope.inference.classifier import Classifier
    from hemascope.models import create_model
    from hemascope.post_training.adapt import adapt
    from hemascope.post_training.calibrate import calibrate
    from hemascope.post_training.fit_morphology import fit_morphology
    from hemascope.predictions import AttributePrediction, Prediction, Region, Uncertainty
    from hemascope.preprocess import InputSpec, View
    from hemascope.records import Evaluation
    from hemascope.smear.count_smear import count_smear
    from hemascope.smear.counted import DifferentialCount
    from hemascope.smear.locate import Locator
    from hemascope.smear.measure_scales import FoundScale, find_scale
    from hemascope.training.recipe import Recipe, list_models
    from hemascope.training.run import train

__version__ = version("hemascope")

__all__ = [
    "BLOOD_CELLS",
    "AttributePrediction",
    "BundleError",
    "CellClass",
    "ClassSet",
    "Classifier",
    "DifferentialCount",
    "Evaluation",
    "FoundScale",
    "HemascopeError",
    "ImageError",
    "InputSpec",
    "Locator",
    "Manifest",
    "ManifestError",
    "Prediction",
    "Recipe",
    "Region",
    "Uncertainty",
    "View",
    "__version__",
    "adapt",
    "calibrate",
    "count_smear",
    "create_model",
    "evaluate",
    "find_scale",
    "fit_morphology",
    "list_bundles",
    "list_models",
    "open_manifest",
    "restrict_classes",
    "to_frame",
    "train",
]

# Each is imported when it is first asked for, so that `import hemascope` costs next to nothing.
_HOMES = {
    "AttributePrediction": "hemascope.predictions",
    "BLOOD_CELLS": "hemascope.classes",
    "BundleError": "hemascope.errors",
    "CellClass": "hemascope.classes",
    "ClassSet": "hemascope.classes",
    "Classifier": "hemascope.inference.classifier",
    "DifferentialCount": "hemascope.smear.counted",
    "Evaluation": "hemascope.records",
    "FoundScale": "hemascope.smear.measure_scales",
    "HemascopeError": "hemascope.errors",
    "ImageError": "hemascope.errors",
    "InputSpec": "hemascope.preprocess",
    "Locator": "hemascope.smear.locate",
    "Manifest": "hemascope.data.manifest",
    "ManifestError": "hemascope.errors",
    "Prediction": "hemascope.predictions",
    "Recipe": "hemascope.training.recipe",
    "Region": "hemascope.predictions",
    "Uncertainty": "hemascope.predictions",
    "View": "hemascope.preprocess",
    "adapt": "hemascope.post_training.adapt",
    "calibrate": "hemascope.post_training.calibrate",
    "count_smear": "hemascope.smear.count_smear",
    "create_model": "hemascope.models",
    "evaluate": "hemascope.evaluation.evaluate",
    "find_scale": "hemascope.smear.measure_scales",
    "fit_morphology": "hemascope.post_training.fit_morphology",
    "list_bundles": "hemascope.bundle.bundle",
    "list_models": "hemascope.training.recipe",
    "open_manifest": "hemascope.data.open_manifest",
    "restrict_classes": "hemascope.bundle.restrict",
    "to_frame": "hemascope.batch.table",
    "train": "hemascope.training.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hemascope' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
