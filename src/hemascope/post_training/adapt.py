"""Bundle + a few labelled cells of another laboratory → a bundle for that laboratory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from hemascope.arrays import Float32Array, FloatArray, IntArray, ProgressCallback
from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Metric
from hemascope.bundle.heads import Heads, read_heads, replace_heads
from hemascope.data.augment import POLICIES, augment_frame
from hemascope.data.manifest import Manifest, ManifestRow, check_labels
from hemascope.errors import ImageError, ManifestError
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.post_training.fit_heads import fit_heads
from hemascope.preprocess import InputSpec
from hemascope.uncertainty.confusion import measure_confusion
from hemascope.uncertainty.temperature import fit_temperature

VIEWS = 16  # of each cell; the first is how it will be seen later, the others are augmented
FRAME = 1.42  # √2: what the corners of a turned square reach for
FOLDS = 5
LEAST_PER_CLASS = 5


def adapt(
    bundle: Bundle,
    manifest: Manifest,
    name: str,
    progress: ProgressCallback | None = None,
) -> Bundle:
    """A bundle for another laboratory, whose last layers are fitted to a few of its cells.

    Each cell is used in 16 ways: as it is, and augmented. Of a bundle with a fallback model, the
    fallback model is adapted. The card's metric is the accuracy on each fifth of the cells after
    fitting to the other four, and the temperature is fitted to the same predictions. Needs
    'hemascope[train]'.

    Parameters
    ----------
    bundle
        The model, such as `Classifier().bundle`.
    manifest
        Labelled cells of the laboratory, at least five of each class that it has.
    name
        What these cells are called on the card.
    progress
        Called with how many cells are done and how many there are.

    Returns
    -------
    Bundle
        It is for that laboratory's images only, and not calibrated.

    Raises
    ------
    ManifestError
        For fewer than two classes, or a class with fewer than five cells that can be read.
    BundleError
        For a graph without a linear last layer.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`, 20 per class:

    >>> from dataclasses import replace
    >>> from hemascope import Classifier, adapt, open_manifest
    >>> manifest = open_manifest("cells")
    >>> cells = replace(manifest, rows=manifest.rows[::4])  # five per class
    >>> bundle = replace(Classifier().bundle, fallback=None)
    >>> adapt(bundle, cells, "drawn cells").card.name
    'hemascope-pbc-4, adapted to drawn cells'
    """
    source = bundle.fallback or bundle
    classes = source.card.classes
    old = read_heads(source)
    check_labels(((row.path, row.label) for row in manifest.rows), classes)
    _check_counts(manifest.rows, name)  # before the features, which take long
    features, read = extract_features(Classifier(source), manifest, progress)  # (N,V,F)
    _check_counts(read, name)
    targets = np.array([classes.index(row.label) for row in read])

    heads, held_out = _fit(features, targets, old)
    adapted = replace_heads(source, heads)
    named = held_out.argmax(axis=1)
    right = int((named == targets).sum())
    measured_on = f"{name}, each fifth of the cells held out"
    card = replace(
        adapted.card,
        name=f"{source.card.name}, adapted to {name}",
        training_data=f"{source.card.training_data}; last layers: {len(read)} cells, {name}",
        temperature=fit_temperature(held_out, targets),
        metrics=(Metric(measured_on, "accuracy", wilson(right, len(read))),),
        confusion=measure_confusion(
            measured_on, targets, named, np.zeros(len(read), dtype=bool), len(classes)
        ),
    )
    return replace(adapted, card=card)


def _fit(features: Float32Array, targets: IntArray, old: Heads) -> tuple[Heads, FloatArray]:
    """The layers fitted to views (N,V,F) of all cells, and logits (N,C) when each is held out.

    Those are of the cell as it will be seen later.
    """
    folds, held_out = folds_of(targets), np.empty((len(targets), len(old.members[0].bias)))
    with threadpool_limits(1):  # on busy processors two, waiting for one another, take minutes
        for fold in range(FOLDS):
            out = folds == fold
            heads = fit_heads(*flatten_views(features[~out], targets[~out]), old)
            held_out[out] = heads(features[out, 0])
        return fit_heads(*flatten_views(features, targets), old), held_out


def flatten_views(features: Float32Array, targets: IntArray) -> tuple[Float32Array, IntArray]:
    """Views (N,V,F) of cells and their classes (N,), as (NV,F) and (NV,)."""
    return features.reshape(-1, features.shape[2]), targets.repeat(features.shape[1])


def folds_of(targets: IntArray) -> IntArray:
    """The part (N,) that each cell is held out with: of each class, every fifth."""
    folds = np.empty(len(targets), dtype=np.int64)
    for k in np.unique(targets):
        rows = np.flatnonzero(targets == k)
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def extract_features(
    classifier: Classifier, manifest: Manifest, progress: ProgressCallback | None = None
) -> tuple[Float32Array, list[ManifestRow]]:
    """Features (N,V,F) of the cells that can be read, VIEWS ways each, and these rows.

    The first way is how the classifier sees the cell, the others are turned, moved and recoloured.
    """
    spec = classifier.card.input
    wide = _widen_spec(spec)
    features, read = [], []
    for done, row in enumerate(manifest.rows, 1):
        view = row.view(manifest.root)
        try:
            image, frame = spec.load(view), wide.load(view)
        except ImageError:
            continue
        views = augment_frame(
            frame, VIEWS - 1, spec.size, spec.size / wide.size, POLICIES["any_rotation"]
        )
        features.append(classifier.outputs(np.concatenate([image[None], views])).features)
        read.append(row)
        if progress is not None:
            progress(done, len(manifest.rows))
    return np.stack(features) if features else np.empty((0, 1, 1), dtype=np.float32), read


def _widen_spec(spec: InputSpec) -> InputSpec:
    """The spec that also sees what is around the input, as far as the image goes."""
    scale = min(FRAME, 1 / spec.crop)
    microns = None if spec.microns is None else spec.microns * scale
    return InputSpec(round(spec.size * scale), spec.crop * scale, microns)


def _check_counts(rows: Iterable[ManifestRow], name: str) -> None:
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        raise ManifestError(f"{name}: adapting needs readable cells of at least two classes")
    label, fewest = min(counts.items(), key=lambda item: item[1])
    if fewest < LEAST_PER_CLASS:
        raise ManifestError(
            f"{name}: {fewest} readable cells of class '{label}'; adapting needs at least "
            f"{LEAST_PER_CLASS} of each class, and ten are better"
        )
