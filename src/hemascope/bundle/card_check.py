"""Checks a card before anything is computed with it: its JSON, and then its values.

Each error is one sentence that names the field, such as `uncertainty.set_threshold`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hemascope.arrays import FloatArray
from hemascope.bundle.morphology_check import COUNT, check_confusion, check_morphology
from hemascope.uncertainty.known_features import AXES, KnownFeatures
from hemascope.uncertainty.laboratory import LaboratoryDetector
from hemascope.uncertainty.model import UncertaintyModel
from hemascope.uncertainty.ood import OODDetector

if TYPE_CHECKING:
    from hemascope.bundle.adaptation import Adaptation
    from hemascope.bundle.card import Card, Metric

DEEPEST = 20  # levels of values within values; a card has seven
TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
PRECISIONS = ("fp32", "int8")
TEMPERATURES = (1e-4, 1e4)  # calibration searches from 0.018 to 55
SHARE = (0.0, 1.0)
DENSITY = (-10.0, 10.0)  # optical densities of 8-bit images lie between -2.5 and 2.5
LOGARITHM = (-1e3, 1e3)  # of a distance
SPREAD = (1e-9, 1e3)  # scores are divided by it
LIMIT = (0.0, 1e6)
VARIANCE = (1e-12, 1e12)


def check_nesting(text: bytes) -> None:
    """Raises ValueError for JSON whose values are nested so deeply that no reader can take it."""
    depth, field = 0, ""
    for token in TOKENS.finditer(text):
        word = token.group()
        if word[:1] == b'"':
            field = word.strip(b'"').decode("utf-8", "replace") if depth == 1 else field
            continue
        depth += 1 if word in b"[{" else -1
        if depth > DEEPEST:
            raise ValueError(f"{field or 'it'} holds values within values, {DEEPEST} levels deep")


def check_numbers(value: Any, name: str = "") -> None:
    """Raises ValueError for a number anywhere in a JSON tree that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    for key, inner in _items(value):
        check_numbers(inner, f"{name}.{key}".removeprefix("."))


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def check_card(card: Card) -> None:
    """Raises ValueError for a value of a card that is out of range or does not fit the others."""
    if not card.name.strip():
        raise ValueError("name must not be empty")
    if card.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")
    if len(set(card.outputs)) != 5 or len(card.outputs) != 5 or not all(card.outputs):
        raise ValueError("outputs must be five different names")
    if card.columns is not None:
        several = len(set(card.columns)) == len(card.columns) == len(card.classes)
        if not several or not all(0 <= column < COUNT[1] for column in card.columns):
            raise ValueError("columns must be different numbers from 0, one per class")
    _check_range("parameters", card.parameters, COUNT)
    _check_range("temperature", card.temperature, TEMPERATURES)
    _check_range("map_offset", card.map_offset, (0.0, float(card.input.size)))
    for number, metric in enumerate(card.metrics):
        _check_metric(f"metrics.{number}.result", metric)
    if card.agreement_error is not None:
        _check_range("agreement_error", card.agreement_error, SHARE)
    if card.uncertainty is not None:
        _check_uncertainty("uncertainty", card.uncertainty, len(card.classes))
    if card.adaptation is not None:
        _check_adaptation("adaptation", card.adaptation, len(card.classes))
    if card.morphology is not None:
        check_morphology(card.morphology, card.classes.names)
    if card.confusion is not None:
        check_confusion("confusion", card.confusion, len(card.classes))
    if card.known_features is not None:
        _check_known_features("known_features", card.known_features)


def _check_known_features(name: str, known: KnownFeatures) -> None:
    if not known.names or len(set(known.names)) != len(known.names) or not all(known.names):
        raise ValueError(f"{name}.names must be different names, at least one")
    if not known.widths or min(known.widths) < 1 or len(known.variances) != len(known.widths):
        raise ValueError(f"{name} must have a width above 0 and a variance for each network")
    width = sum(known.widths)
    for part, rows in (("means", len(known.names)), ("axes", AXES)):
        array = getattr(known, part)
        if array.shape != (rows, width) or not np.isfinite(array).all():
            raise ValueError(f"{name}.{part} must be finite numbers of shape {(rows, width)}")
    for number, variance in enumerate(known.variances):
        _check_range(f"{name}.variances.{number}", variance, VARIANCE)


def _check_metric(name: str, metric: Metric) -> None:
    result = metric.result
    _check_range(f"{name}.n", result.n, COUNT)
    _check_range(f"{name}.successes", result.successes, (0, result.n))
    for part in ("value", "low", "high"):
        share = getattr(result, part)
        if share is not None:
            _check_range(f"{name}.{part}", share, SHARE)


def _check_adaptation(name: str, adaptation: Adaptation, num_classes: int) -> None:
    cells, members, width = adaptation.cells, len(adaptation.widths), sum(adaptation.widths)
    n = len(cells.targets)
    shapes = {
        "weight": (adaptation.weight, (num_classes, width)),
        "bias": (adaptation.bias, (members, num_classes)),
        "cells.features": (cells.features, (n, *cells.features.shape[1:2], width)),
        "cells.style_statistics": (cells.style_statistics, (n, *cells.style_statistics.shape[1:])),
        "cells.style": (cells.style, (n, 4 if cells.style.shape[1:] == (4,) else 5)),
        "cells.quality": (cells.quality, (n, 3)),
    }
    for part, (array, shape) in shapes.items():
        if array.shape != shape or not array.size:
            raise ValueError(f"{name}.{part} must be of shape {shape}, not {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}.{part} must hold finite numbers only")
    if min(adaptation.widths) < 1 or not all(0 <= k < num_classes for k in cells.targets):
        raise ValueError(f"{name} must be of the classes on the card, and of widths above 0")
    _check_range(f"{name}.temperature", adaptation.temperature, TEMPERATURES)
    if adaptation.uncertainty is not None:
        known = len(adaptation.uncertainty.class_thresholds)
        _check_range(f"{name}.uncertainty.class_thresholds", known, (2, num_classes))
        _check_uncertainty(f"{name}.uncertainty", adaptation.uncertainty, known)


def _check_uncertainty(name: str, model: UncertaintyModel, num_classes: int) -> None:
    if len(model.class_thresholds) != num_classes:
        raise ValueError(
            f"{name}.class_thresholds must be {num_classes} numbers, one per class, not "
            f"{len(model.class_thresholds)}"
        )
    _check_range(f"{name}.images", model.images, (1, COUNT[1]))
    for part in ("set_threshold", "least_probability"):
        _check_range(f"{name}.{part}", getattr(model, part), SHARE)
    for number, threshold in enumerate(model.class_thresholds):
        _check_range(f"{name}.class_thresholds.{number}", threshold, SHARE)
    _check_range(f"{name}.quality.sharpness", model.quality.sharpness, LIMIT)
    _check_range(f"{name}.quality.cell_contrast", model.quality.cell_contrast, DENSITY)
    _check_range(f"{name}.quality.edge_contact", model.quality.edge_contact, LIMIT)
    _check_detector(f"{name}.ood_detector", model.ood_detector, num_classes)
    if model.laboratories is not None:
        _check_laboratories(f"{name}.laboratories", model.laboratories)


def _check_detector(name: str, detector: OODDetector, num_classes: int) -> None:
    for part, limits in (("centre", LOGARITHM), ("spread", SPREAD)):
        for number, value in enumerate(getattr(detector, part)):
            _check_range(f"{name}.{part}.{number}", value, limits)
    _check_range(f"{name}.mean_limit", detector.mean_limit, LIMIT)
    _check_range(f"{name}.style_limit", detector.style_limit, LIMIT)
    for part, array in _arrays(detector):
        if array.ndim != 2 or not array.size:
            raise ValueError(
                f"{name}.{part} must be a table of numbers, not of shape {array.shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name}.{part} must hold finite numbers only")
        if part != "style.whiten" and len(array) > num_classes:
            raise ValueError(f"{name}.{part} must have at most {num_classes} rows, one per class")
    if detector.style is None:
        return
    width = detector.style.means.shape[1]
    if detector.style.whiten.shape != (width, width):
        raise ValueError(f"{name}.style.whiten must be of shape {(width, width)}, as its means are")


def _check_laboratories(name: str, detector: LaboratoryDetector) -> None:
    known, shape = len(detector.names), detector.means.shape
    if len(shape) != 2:
        raise ValueError(f"{name}.means must be a table of numbers, not of shape {shape}")
    groups, width = shape
    if not known or len(set(detector.names)) != known or not all(detector.names):
        raise ValueError(f"{name}.names must be different names, at least one")
    if len(detector.limits) != known:
        raise ValueError(f"{name}.limits must be {known} numbers, one per laboratory")
    for number, limit in enumerate(detector.limits):
        _check_range(f"{name}.limits.{number}", limit, SPREAD)
    if len(detector.laboratory_of) != groups or set(detector.laboratory_of) != set(range(known)):
        raise ValueError(f"{name}.laboratory_of must name a laboratory per row of means, and all")
    if detector.whiten.shape != (width, width):
        raise ValueError(f"{name}.whiten must be as wide and as high as its means are wide")
    for part in ("means", "whiten"):
        if not np.isfinite(getattr(detector, part)).all():
            raise ValueError(f"{name}.{part} must hold finite numbers only")


def _arrays(detector: OODDetector) -> Iterator[tuple[str, FloatArray]]:
    yield "directions.means", detector.directions.means
    if detector.style is not None:
        yield "style.means", detector.style.means
        yield "style.whiten", detector.style.whiten


def _check_range(name: str, value: float, limits: tuple[float, float]) -> None:
    low, high = limits
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, not {value:g}")
