"""Classifier + manifest → Evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from hemascope.arrays import FloatArray, IntArray, ProgressCallback
from hemascope.data.external import Site
from hemascope.data.manifest import Manifest, ManifestRow, check_labels
from hemascope.errors import ManifestError
from hemascope.evaluation.uncertainty import measure_uncertainty
from hemascope.inference.classifier import Classifier
from hemascope.metrics import classification as metrics
from hemascope.metrics.class_subset import measure_choice, measure_present, shared_classes
from hemascope.predictions import Prediction
from hemascope.provenance import data_hash, provenance
from hemascope.records import Evaluation, SiteMetrics, UncertaintyMetrics


def evaluate(
    classifier: Classifier,
    manifest: Manifest,
    name: str,
    progress: ProgressCallback | None = None,
    site: Site | None = None,
) -> Evaluation:
    """How a classifier does on labelled cells.

    An image that cannot be read is left out of every figure and listed in the result. Cells whose
    width of pixels is given have the figures of a site as well. Needs 'hemascope[evaluate]'.

    Parameters
    ----------
    classifier
        The classifier.
    manifest
        The labelled cells.
    name
        What these cells are called in the results.
    progress
        Called with how many cells are done and how many there are.
    site
        The laboratory that they come from, if it is a known one.

    Returns
    -------
    Evaluation
        Every figure with its number of images and its 95 % interval.

    Raises
    ------
    ManifestError
        For a label that the classifier does not know, or where no image can be read.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`, 20 per class:

    >>> from hemascope import Classifier, evaluate, open_manifest
    >>> found = evaluate(Classifier(), open_manifest("cells"), "drawn cells")
    >>> found.accuracy.n
    160
    """
    classes = classifier.card.classes
    check_labels(((row.path, row.label) for row in manifest.rows), classes)
    read, predictions, unreadable = _predict_all(classifier, manifest, progress)
    if not read.rows:
        raise ManifestError(f"{name}: none of {len(manifest.rows)} images could be read")
    facts = provenance(data_hash((row.sha256 or row.path, row.label) for row in read.rows))
    scores = np.array([list(prediction.probabilities.values()) for prediction in predictions])
    targets = np.array([classes.index(row.label) for row in read.rows])
    names = dict(zip(manifest.rows, manifest.names(), strict=True))
    evaluation = metrics.evaluate(
        name=name,
        class_names=classes.names,
        probabilities=scores,
        targets=targets,
        paths=[names[row] for row in read.rows],
        subtypes=[row.subtype for row in read.rows],
        unreadable=unreadable,
        provenance=facts | {"model_sha256": classifier.card.model_sha256},
    )
    return replace(
        evaluation,
        uncertainty=_measure_uncertainty(classifier, predictions, targets),
        site=_measure_site(evaluation, read.rows, scores, targets, site),
        among_present=measure_present(classes.names, scores, targets),
    )


def _measure_uncertainty(
    classifier: Classifier, predictions: Sequence[Prediction], targets: IntArray
) -> UncertaintyMetrics | None:
    """How far a calibrated model's statements about its predictions held; None for others."""
    card = classifier.card
    if card.uncertainty is None:
        return None
    temperatures = np.array([classifier.model_for(made).card.temperature for made in predictions])
    return measure_uncertainty(predictions, targets, temperatures, card.uncertainty.calibrated_on)


def _predict_all(
    classifier: Classifier, manifest: Manifest, progress: ProgressCallback | None
) -> tuple[Manifest, list[Prediction], list[str]]:
    """The rows that can be read, their Predictions, and what is wrong with the others."""
    read: list[ManifestRow] = []
    predictions: list[Prediction] = []
    unreadable: list[str] = []
    streamed = classifier.stream(manifest.views())
    for done, (row, prediction) in enumerate(zip(manifest.rows, streamed, strict=True), 1):
        if prediction.label is None:
            unreadable.append(f"{row.path}: {prediction.status}")
        else:
            read.append(row)
            predictions.append(prediction)
        if progress is not None:
            progress(done, len(manifest.rows))
    return replace(manifest, rows=tuple(read)), predictions, unreadable


def _measure_site(
    evaluation: Evaluation,
    rows: Sequence[ManifestRow],
    probabilities: FloatArray,
    targets: IntArray,
    site: Site | None,
) -> SiteMetrics | None:
    """The figures of cells that were read; None where they are no site's."""
    widths = [row.um_per_pixel for row in rows if row.um_per_pixel is not None]
    if not widths:
        return None
    names = evaluation.class_names
    everything = np.arange(len(names))
    shared = shared_classes(targets, len(names))
    counts = Counter(names[target] for target in targets)
    return SiteMetrics(
        title=site.source.title if site else evaluation.name,
        address=site.source.address if site else "",
        scale=site.scale if site else "as given, or as the cells tell it",
        um_per_pixel=median(widths),
        cells=dict(counts.most_common()),
        shared=tuple(names[k] for k in shared),
        n=int(np.isin(targets, shared).sum()),
        among_all=measure_choice(names, probabilities, targets, shared, everything),
        among_shared=measure_choice(names, probabilities, targets, shared, shared),
    )
