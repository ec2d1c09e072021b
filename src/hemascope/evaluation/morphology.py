"""measure_morphology: how a classifier does on attributes and subtypes of labelled cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hemascope.arrays import IntArray, ProgressCallback
from hemascope.attributes import ATTRIBUTES, Attribute
from hemascope.bundle.engine import ModelOutputs
from hemascope.data.attributes import UNKNOWN, AttributeTable, attributes_of
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.errors import ManifestError
from hemascope.inference.batches import predict_loaded
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.metrics.morphology import measure_agreement, measure_maturation
from hemascope.post_training.calibrate import BATCH, readable_batches
from hemascope.predictions import Prediction
from hemascope.records import (
    AttributeMetrics,
    ContradictionMetrics,
    MaturationMetrics,
    MeanMetrics,
    MorphologyMetrics,
    SubtypeMetrics,
)
from hemascope.subtypes import SUBTYPES, name_subtype, stage_of
from hemascope.uncertainty.morphology import CONTRADICTION, MorphologyModel

STAGES = tuple(subtype.name for subtype in SUBTYPES if subtype.stage is not None)


@dataclass
class _Cells:
    """Cells that could be read, what is predicted of them, and each attribute's value's index."""

    rows: list[ManifestRow] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    named: dict[str, list[int]] = field(default_factory=dict)

    def add(
        self,
        rows: Sequence[ManifestRow],
        predictions: Sequence[Prediction],
        outputs: ModelOutputs,
        model: MorphologyModel,
    ) -> None:
        self.rows += rows
        self.predictions += predictions
        for layer in model.attributes:
            answers = layer(outputs.features).argmax(axis=1).tolist()
            self.named.setdefault(layer.name, []).extend(answers)


def measure_morphology(
    classifier: Classifier,
    manifest: Manifest,
    attributes: AttributeTable | None = None,
    second: AttributeTable | None = None,
    progress: ProgressCallback | None = None,
) -> MorphologyMetrics:
    """The figures of attributes and subtypes, of the bundle's own network.

    Attributes are measured on the cells in the table `attributes`, whatever they are named as;
    `second` is a second annotator's table, and how far the two agree is the ceiling. Raises
    ValueError for a bundle that tells neither, or no attributes where a table is given, and
    ManifestError where the tables have no cell in common with the manifest or with one another.
    """
    model = classifier.card.morphology
    if model is None or (attributes is not None and not model.attributes):
        what = "attributes" if attributes is not None else "attributes and no subtypes"
        raise ValueError(
            f"'{classifier.card.name}' tells no {what}; make a bundle that does with "
            "'hemascope fit-morphology'"
        )
    cells = _name_cells(classifier, manifest, model, progress)
    of_attributes: tuple[AttributeMetrics, ...] = ()
    mean = annotator_mean = None
    if attributes is not None:
        of_attributes, mean = _measure_attributes(cells, manifest, model, attributes)
    if attributes is not None and second is not None:
        of_attributes, annotator_mean = _add_annotator(of_attributes, attributes, second)
    return MorphologyMetrics(
        fitted_on=model.fitted_on,
        attributes=of_attributes,
        mean=mean,
        annotator_mean=annotator_mean,
        contradictions=_measure_contradictions(cells, model),
        per_subtype=_measure_subtypes(cells, classifier, model),
        maturation=_measure_line(cells, classifier, model),
    )


def _name_cells(
    classifier: Classifier,
    manifest: Manifest,
    model: MorphologyModel,
    progress: ProgressCallback | None,
) -> _Cells:
    """What is predicted of the cells. Raises ManifestError where none can be read."""
    cells = _Cells()
    for done, (rows, images) in enumerate(readable_batches(manifest, classifier), 1):
        outputs = classifier.outputs(images)
        cells.add(rows, predict_loaded(classifier, images, class_maps=False), outputs, model)
        if progress is not None:
            progress(min(done * BATCH, len(manifest.rows)), len(manifest.rows))
    if not cells.rows:
        raise ManifestError(f"{manifest.root}: none of {len(manifest.rows)} images could be read")
    return cells


def _measure_attributes(
    cells: _Cells, manifest: Manifest, model: MorphologyModel, table: AttributeTable
) -> tuple[tuple[AttributeMetrics, ...], MeanMetrics]:
    """The figures of the attributes that the model tells, on cells of which all are annotated."""
    places = [k for k, a in enumerate(ATTRIBUTES) if a.name in cells.named]
    truth = np.array(attributes_of(replace(manifest, rows=tuple(cells.rows)), table))[:, places]
    named = np.stack([_indices_of(cells, model, ATTRIBUTES[k]) for k in places], axis=1)
    known = (truth != UNKNOWN).all(axis=1)
    if not known.any():
        raise ManifestError("no cell has all attributes that the model tells annotated")
    each, mean = measure_agreement(truth[known], named[known])
    commonest = [int(np.bincount(column).max()) for column in truth[known].T]
    return tuple(
        AttributeMetrics(ATTRIBUTES[k].name, found, wilson(count, int(known.sum())))
        for k, found, count in zip(places, each, commonest, strict=True)
    ), mean


def _indices_of(cells: _Cells, model: MorphologyModel, attribute: Attribute) -> IntArray:
    """The named values (N,) of an attribute, by their places in its record."""
    layer = next(layer for layer in model.attributes if layer.name == attribute.name)
    places = np.array([attribute.values.index(value) for value in layer.values])
    return np.asarray(places[cells.named[attribute.name]])


def _add_annotator(
    measured: Sequence[AttributeMetrics], first: AttributeTable, second: AttributeTable
) -> tuple[tuple[AttributeMetrics, ...], MeanMetrics]:
    """The figures with those of a second annotator, on all cells that both annotated wholly."""
    places = [k for k, a in enumerate(ATTRIBUTES) if a.name in {found.name for found in measured}]
    pairs = np.array([(first[name], second[name]) for name in second if name in first])
    pairs = pairs.reshape(-1, 2, len(ATTRIBUTES))[:, :, places]
    pairs = pairs[(pairs != UNKNOWN).all(axis=(1, 2))]
    if not len(pairs):
        raise ManifestError("the two annotators have no wholly annotated cell in common")
    each, mean = measure_agreement(pairs[:, 0], pairs[:, 1])
    return tuple(
        replace(found, annotator=agreement) for found, agreement in zip(measured, each, strict=True)
    ), mean


def _measure_contradictions(cells: _Cells, model: MorphologyModel) -> ContradictionMetrics | None:
    if model.looks is None:
        return None
    described = [
        (row.label == made.label, made.uncertainty.review_reasons if made.uncertainty else ())
        for row, made in zip(cells.rows, cells.predictions, strict=True)
        if made.label in model.looks.classes
    ]
    right = [CONTRADICTION in reasons for is_right, reasons in described if is_right]
    wrong = [reasons for is_right, reasons in described if not is_right]
    return ContradictionMetrics(
        of_right=wilson(sum(right), len(right)),
        of_mistakes=wilson(sum(CONTRADICTION in reasons for reasons in wrong), len(wrong)),
        alone=wilson(sum(reasons == (CONTRADICTION,) for reasons in wrong), len(wrong)),
    )


def _subtype_of(row: ManifestRow, classifier: Classifier) -> str:
    """The subtype that a row gives, by its full name; empty where it gives none."""
    found = classifier.card.classes.find(row.label)
    return "" if found is None else name_subtype(row.subtype, found)


def _measure_subtypes(
    cells: _Cells, classifier: Classifier, model: MorphologyModel
) -> tuple[SubtypeMetrics, ...]:
    """The recall of each subtype that the model tells."""
    counts: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for row, made in zip(cells.rows, cells.predictions, strict=True):
        name = _subtype_of(row, classifier)
        counts[name] += 1
        hits[name] += made.label == row.label and made.subtype == name
    return tuple(
        SubtypeMetrics(layer.name, value, wilson(hits[value], counts[value]))
        for layer in model.subtypes
        for value in sorted(layer.values, key=lambda value: (stage_of(value) or 0, value))
    )


def _measure_line(
    cells: _Cells, classifier: Classifier, model: MorphologyModel
) -> MaturationMetrics | None:
    """The confusion of the stages of maturation; None for a model that does not tell them all."""
    told = {value for layer in model.subtypes for value in layer.values}
    if not told.issuperset(STAGES):
        return None
    pairs = [
        (STAGES.index(name), -1 if made.subtype not in STAGES else STAGES.index(made.subtype))
        for row, made in zip(cells.rows, cells.predictions, strict=True)
        if (name := _subtype_of(row, classifier)) in STAGES
    ]
    if not pairs:
        return None
    labelled, named = np.array(pairs).T
    return measure_maturation(STAGES, labelled, named)
