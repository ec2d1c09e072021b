"""Classifier + labelled cells → Evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from hemascope.arrays import FloatArray, IntArray, ProgressCallback
from hemascope.data.external import LabelledCell, Site
from hemascope.data.manifest import ManifestError, check_labels
from hemascope.evaluation.uncertainty import trust_figures
from hemascope.inference.classifier import Classifier
from hemascope.metrics import classification as metrics
from hemascope.metrics.class_subset import choice_scores, shared_classes
from hemascope.provenance import data_hash, provenance
from hemascope.records import Evaluation, Prediction, SiteScores, TrustFigures


def evaluate(
    classifier: Classifier,
    cells: Sequence[LabelledCell],
    name: str,
    progress: ProgressCallback | None = None,
    site: Site | None = None,
) -> Evaluation:
    """How the classifier does on every cell, by its label; `site` is where they come from.

    Cells whose pixels' width is given are of a site, known or not, and have its figures too. An
    image that cannot be read is left out of every figure and listed. Raises ManifestError for
    a label that the classifier does not know, or where no image can be read.
    """
    classes = classifier.card.classes
    check_labels(((cell.path, cell.label) for cell in cells), classes)
    read, answers, unreadable = _answers(classifier, cells, progress)
    if not read:
        raise ManifestError(f"{name}: none of {len(cells)} images could be read")
    facts = provenance(data_hash((cell.sha256 or cell.path, cell.label) for cell in read))
    scores = np.array([list(answer.probabilities.values()) for answer in answers])
    targets = np.array([classes.index(cell.label) for cell in read])
    evaluation = metrics.evaluate(
        name=name,
        class_names=classes.names,
        probabilities=scores,
        targets=targets,
        paths=[cell.path for cell in read],
        subtypes=[cell.subtype for cell in read],
        unreadable=unreadable,
        provenance=facts | {"model_sha256": classifier.card.model_sha256},
    )
    return replace(
        evaluation,
        trust=_trust(classifier, answers, targets),
        site=_site_scores(evaluation, read, scores, targets, site),
    )


def _trust(
    classifier: Classifier, answers: Sequence[Prediction], targets: IntArray
) -> TrustFigures | None:
    """How far a calibrated model's judgement of its answers held; None of another model."""
    card, other = classifier.card, classifier.elsewhere
    if card.trust is None:
        return None
    referred = other.card.temperature if other is not None else card.temperature
    known = np.array([bool(answer.in_distribution) for answer in answers])
    temperatures = np.where(known, card.temperature, referred)
    return trust_figures(answers, targets, temperatures, card.trust.calibrated_on)


def _answers(
    classifier: Classifier, cells: Sequence[LabelledCell], progress: ProgressCallback | None
) -> tuple[list[LabelledCell], list[Prediction], list[str]]:
    """The cells that can be read, their Predictions, and what is wrong with the others."""
    read: list[LabelledCell] = []
    answers: list[Prediction] = []
    unreadable: list[str] = []
    predictions = classifier.stream([cell.view for cell in cells])
    for done, (cell, prediction) in enumerate(zip(cells, predictions, strict=True), 1):
        if prediction.label is None:
            unreadable.append(f"{cell.path}: {prediction.status}")
        else:
            read.append(cell)
            answers.append(prediction)
        if progress is not None:
            progress(done, len(cells))
    return read, answers, unreadable


def _site_scores(
    evaluation: Evaluation,
    cells: Sequence[LabelledCell],
    probabilities: FloatArray,
    targets: IntArray,
    site: Site | None,
) -> SiteScores | None:
    """The figures of cells that were read; None where they are no site's."""
    widths = [cell.view.um_per_pixel for cell in cells if cell.view.um_per_pixel is not None]
    if not widths:
        return None
    names = evaluation.class_names
    everything = np.arange(len(names))
    shared = shared_classes(targets, len(names))
    counts = Counter(names[target] for target in targets)
    return SiteScores(
        title=site.source.title if site else evaluation.name,
        address=site.source.address if site else "",
        scale=site.scale if site else "as given",
        um_per_pixel=median(widths),
        cells=dict(counts.most_common()),
        shared=tuple(names[k] for k in shared),
        n=int(np.isin(targets, shared).sum()),
        among_all=choice_scores(names, probabilities, targets, shared, everything),
        among_shared=choice_scores(names, probabilities, targets, shared, shared),
    )
