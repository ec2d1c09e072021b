"""Bundle + cells whose attributes or subtypes are known → a bundle that tells these as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from hemascope.arrays import (
    AnyFloatArray,
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    ProgressCallback,
)
from hemascope.bundle.bundle import Bundle
from hemascope.data.attributes import UNKNOWN, AttributeTable
from hemascope.data.auxiliary import SUBTYPE_OF, AuxiliaryTargets, collect_targets
from hemascope.data.manifest import Manifest, ManifestRow, check_labels
from hemascope.errors import ManifestError
from hemascope.inference.classifier import Classifier
from hemascope.post_training.calibrate import BATCH, readable_batches
from hemascope.post_training.minimise import minimise
from hemascope.uncertainty.confusion import Confusion, measure_confusion
from hemascope.uncertainty.image_quality import measure_quality
from hemascope.uncertainty.model import assess_measured
from hemascope.uncertainty.morphology import Looks, MorphologyModel, SoftmaxLayer
from hemascope.uncertainty.temperature import fit_temperature, log_sum_exp, softmax

RIDGE = 1e-3  # times half the squared weights, in standard deviations of the features
TOLERANCE = 1e-6  # of the loss, relative
FOLDS = 5
LEAST_CELLS = 20  # of a subtype, and described ones of a class
CONTRADICTING_SHARE = 0.005  # of cells of the right class, whose looks count as contradicting it


def fit_morphology(
    bundle: Bundle,
    manifest: Manifest,
    name: str,
    attributes: AttributeTable | None = None,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """A bundle with the same network, which also tells what a cell looks like, and its subtype.

    For each attribute, and for the subtypes of each class, one linear layer with a softmax is
    fitted on the network's features; the class logits do not change. Subtypes are told apart within
    their class, and their probabilities sum to that of the class. Each layer has a temperature from
    cells that it was not fitted on, each fifth in turn: of those that are not of split train, where
    there are any, since the network knows the others. The same cells say how the subtypes are
    confused, which a differential count allows for. Rows of split test are left out.

    Parameters
    ----------
    bundle
        The model, such as `Classifier().bundle`. Its fallback model stays as it is.
    manifest
        Labelled cells, with subtypes or with attributes. Subtypes of fewer than 20 cells are not
        told.
    name
        What these cells are called on the card.
    attributes
        What is seen of each cell (`data.attributes.read_attributes`), by its file's name.
    progress
        Called with how many cells are done and how many there are.

    Returns
    -------
    Bundle
        `Classifier(bundle).save_pretrained(folder)` writes it.

    Raises
    ------
    ManifestError
        For a label that the model does not know, where no image can be read, and where nothing but
        classes is known of the cells.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`, 20 per class:

    >>> from dataclasses import replace
    >>> from hemascope import Classifier, fit_morphology, open_manifest
    >>> cells = open_manifest("cells")
    >>> halves = [replace(row, subtype="ab"[n % 2]) for n, row in enumerate(cells.rows)]
    >>> twice = replace(cells, rows=(*halves, *halves))
    >>> fit_morphology(Classifier().bundle, twice, "drawn cells").card.morphology.images
    320
    """
    rows = tuple(row for row in manifest.rows if row.split != "test")
    if not rows:
        raise ManifestError(f"{name}: all rows are of split test, on which nothing is fitted")
    check_labels(((row.path, row.label) for row in rows), bundle.card.classes)
    rows = _drop_rare_subtypes(rows)
    if collect_targets(replace(manifest, rows=rows), bundle.card.classes, attributes) is None:
        raise ManifestError(
            f"{name}: no class has two subtypes of {LEAST_CELLS} cells or more, and no attributes "
            "are given; add the column subtype to the manifest, or give --attributes"
        )
    measured = _measure(bundle, replace(manifest, rows=rows), progress)
    rows = measured.rows
    targets = collect_targets(replace(manifest, rows=rows), bundle.card.classes, attributes)
    if targets is None:
        raise ManifestError(f"{name}: too few of the {len(manifest.rows)} images could be read")
    cells = measured._replace(targets=targets)
    with threadpool_limits(1):  # as in `adapt`
        model = _fit_layers(cells, bundle.card.classes.names, name)
    return replace(bundle, card=replace(bundle.card, morphology=model))


class _Cells(NamedTuple):
    """N cells: their rows, features (N,F), the class indices that they are named, which are for
    review (N,), and targets."""

    rows: tuple[ManifestRow, ...]
    features: Float32Array
    named: IntArray
    review: BoolArray
    targets: AuxiliaryTargets


def _drop_rare_subtypes(rows: Sequence[ManifestRow]) -> tuple[ManifestRow, ...]:
    """The rows, without the subtypes of fewer than LEAST_CELLS of them."""
    keys = [(row.label, row.subtype) for row in rows]
    counts = {key: keys.count(key) for key in set(keys)}
    return tuple(
        replace(row, subtype=row.subtype if counts[key] >= LEAST_CELLS else "")
        for row, key in zip(rows, keys, strict=True)
    )


def _measure(bundle: Bundle, manifest: Manifest, progress: ProgressCallback | None) -> _Cells:
    """The cells that can be read, as the bundle measures them; their targets are not known yet."""
    classifier, uncertainty = Classifier(bundle), bundle.card.uncertainty
    read: list[ManifestRow] = []
    features, named, review = [], [], []
    for done, (rows, images) in enumerate(readable_batches(manifest, classifier), 1):
        outputs = classifier.outputs(images)
        read += rows
        features.append(outputs.features)
        named.append(outputs.logits.argmax(axis=1))
        reasons: Sequence[object] = [()] * len(rows)
        if uncertainty is not None:
            reasons = assess_measured(
                uncertainty,
                softmax(outputs.logits, bundle.card.temperature),
                outputs.features,
                outputs.style_statistics,
                measure_quality(images),
            ).reasons
        review.append([bool(each) for each in reasons])
        if progress is not None:
            progress(min(done * BATCH, len(manifest.rows)), len(manifest.rows))
    if not read:
        raise ManifestError(f"{manifest.root}: none of {len(manifest.rows)} images could be read")
    none = AuxiliaryTargets((), np.empty((len(read), 0), np.int64))
    return _Cells(
        tuple(read), np.concatenate(features), np.concatenate(named), np.concatenate(review), none
    )


def _fit_layers(cells: _Cells, class_names: Sequence[str], name: str) -> MorphologyModel:
    folds = np.arange(len(cells.rows)) % FOLDS
    unseen = np.array([row.split != "train" for row in cells.rows])
    attributes, subtypes, held_out, held_out_subtypes = [], [], [], []
    for column, indices in zip(cells.targets.columns, cells.targets.indices.T, strict=True):
        known = indices != UNKNOWN
        layer, logits = _fit_calibrated(
            cells.features, indices, len(column.values), folds, known & unseen
        )
        if column.name.startswith(SUBTYPE_OF):
            class_name = column.name.removeprefix(SUBTYPE_OF)
            subtypes.append(replace(layer, name=class_name, values=column.values))
            held_out_subtypes.append((indices, logits))
        else:
            attributes.append(replace(layer, name=column.name, values=column.values))
            held_out.append((indices, logits))
    looks = None
    if attributes:
        answers = [
            np.exp(scaled - log_sum_exp(scaled)[:, None])
            for layer, (_, logits) in zip(attributes, held_out, strict=True)
            for scaled in [logits / layer.temperature]
        ]
        looks = _fit_looks(cells, class_names, [indices for indices, _ in held_out], answers)
    model = MorphologyModel(name, len(cells.rows), tuple(attributes), looks, tuple(subtypes))
    if not subtypes:
        return model
    judged = unseen if unseen.any() else np.ones_like(unseen)
    return replace(
        model, confusion=_measure_subtypes(cells, class_names, model, held_out_subtypes, judged)
    )


def _measure_subtypes(
    cells: _Cells,
    class_names: Sequence[str],
    model: MorphologyModel,
    held_out: Sequence[tuple[IntArray, FloatArray]],
    judged: BoolArray,
) -> Confusion:
    """How cells are named, by class and subtype, of those that are judged and whose name is known.

    For each layer, `held_out` has what is known (N,) and the logits (N,V) of cells held out.
    """
    labels = np.array([class_names.index(row.label) for row in cells.rows])
    told = model.names_told(class_names)
    classes = [class_name for class_name, _ in told]
    starts = np.array([classes.index(class_name) for class_name in class_names])
    targets, named, judged = starts[labels], starts[cells.named], judged.copy()
    for layer, (indices, logits) in zip(model.subtypes, held_out, strict=True):
        own, called = (of == class_names.index(layer.name) for of in (labels, cells.named))
        judged &= ~own | (indices != UNKNOWN)
        targets[own] += indices[own]
        named[called] += logits[called].argmax(axis=1)
    found = targets[judged], named[judged], cells.review[judged]
    return measure_confusion(model.fitted_on, *found, len(told))


def _fit_calibrated(
    features: AnyFloatArray, indices: IntArray, values: int, folds: IntArray, unseen: BoolArray
) -> tuple[SoftmaxLayer, FloatArray]:
    """A layer that is fitted to all cells whose value is known, and the logits (N,V) of all cells
    when they are held out, each fifth in turn."""
    known = indices != UNKNOWN
    held_out = np.empty((len(features), values))
    for fold in range(FOLDS):
        out = folds == fold
        chosen = known & ~out
        layer = fit_layer(features[chosen], indices[chosen], values)
        held_out[out] = layer.logits(features[out])
    judged = unseen if unseen.any() else known
    temperature = fit_temperature(held_out[judged], indices[judged])
    layer = fit_layer(features[known], indices[known], values)
    return replace(layer, temperature=temperature), held_out


def fit_layer(features: AnyFloatArray, targets: IntArray, values: int) -> SoftmaxLayer:
    """The multinomial logistic regression of targets (N,), from 0, on features (N,F)."""
    wide = np.asarray(features, np.float64)
    centre, spread = wide.mean(axis=0), wide.std(axis=0) + 1e-6
    inputs, labels, n = (wide - centre) / spread, np.eye(values)[targets], len(targets)

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        weight, bias = np.split(flat.reshape(values, -1), [inputs.shape[1]], axis=1)
        logits = inputs @ weight.T + bias[:, 0]
        totals = log_sum_exp(logits)
        error = (np.exp(logits - totals[:, None]) - labels) / n
        value = (totals - logits[np.arange(n), targets]).mean() + RIDGE / 2 * (weight**2).sum()
        gradient = np.hstack([error.T @ inputs + RIDGE * weight, error.sum(axis=0)[:, None]])
        return float(value), gradient.ravel()

    found = minimise(loss, np.zeros(values * (inputs.shape[1] + 1)), TOLERANCE)
    weight, bias = np.split(found.reshape(values, -1), [inputs.shape[1]], axis=1)
    weight = weight / spread
    return SoftmaxLayer("", (), weight, bias[:, 0] - weight @ centre)


def _fit_looks(
    cells: _Cells,
    class_names: Sequence[str],
    known: Sequence[IntArray],
    answers: Sequence[FloatArray],
) -> Looks:
    """How cells of each described class look, from what is known (N,) of each attribute.

    The limit is from the answers (N,V) for cells that were held out and are named rightly.
    """
    labels = np.array([class_names.index(row.label) for row in cells.rows])
    described = np.all([indices != UNKNOWN for indices in known], axis=0)
    counts = np.bincount(labels[described], minlength=len(class_names))
    classes = [k for k, count in enumerate(counts) if count >= LEAST_CELLS]
    if not classes:
        raise ManifestError(f"no class has {LEAST_CELLS} cells whose attributes are all given")
    chances = [
        _chances(indices, labels, classes, described, answer.shape[1])
        for indices, answer in zip(known, answers, strict=True)
    ]
    looks = Looks(tuple(class_names[k] for k in classes), np.hstack(chances), 0.0)
    right = described & (cells.named == labels) & np.isin(labels, classes)
    places = np.searchsorted(classes, labels[right])
    given = looks.given_looks([answer[right] for answer in answers])
    own = given[np.arange(len(places)), places]
    return replace(looks, least=float(np.quantile(own, CONTRADICTING_SHARE)) if own.size else 0.0)


def _chances(
    indices: IntArray, labels: IntArray, classes: Sequence[int], described: BoolArray, values: int
) -> FloatArray:
    """How often each value is seen in each class, (C,V); one more than there are, as by Laplace."""
    counts = [np.bincount(indices[described & (labels == k)], minlength=values) for k in classes]
    seen = np.array(counts) + 1.0
    return np.asarray(seen / seen.sum(axis=1, keepdims=True))
