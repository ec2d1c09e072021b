"""Classifier + manifest → Evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hemascope.bundle.classifier import Classifier
from hemascope.data.manifest import Manifest, ManifestError, ManifestRow
from hemascope.provenance import data_hash, provenance
from hemascope.reports.figures import draw_confusion, draw_recalls, draw_trust
from hemascope.reports.pages import evaluation_page
from hemascope.results import Evaluation, Prediction, to_json, written_whole
from hemascope.scoring import metrics
from hemascope.scoring.assessment import trust_figures

Progress = Callable[[int, int], None]


def evaluate(
    classifier: Classifier, manifest: Manifest, name: str, progress: Progress | None = None
) -> Evaluation:
    """How the classifier does on every image of the manifest, by its labels.

    An image that cannot be read is left out of every figure and listed. Raises ManifestError for
    a label that the classifier does not know, or where no image can be read.
    """
    classes = classifier.card.classes
    for row in manifest.rows:
        if row.label not in classes:
            raise ManifestError(
                f"{row.path}: its label '{row.label}' is no class of the model "
                f"({', '.join(classes.names)})"
            )
    paths = [str(manifest.root / row.path) for row in manifest.rows]
    read: list[ManifestRow] = []
    answers: list[Prediction] = []
    unreadable: list[str] = []
    predictions = classifier.stream(paths)
    for done, (row, prediction) in enumerate(zip(manifest.rows, predictions, strict=True), 1):
        if prediction.label is None:
            unreadable.append(f"{row.path}: {prediction.status}")
        else:
            read.append(row)
            answers.append(prediction)
        if progress is not None:
            progress(done, len(paths))
    if not read:
        raise ManifestError(f"{manifest.root}: none of {len(paths)} images could be read")
    facts = provenance(data_hash((row.sha256 or row.path, row.label) for row in read))
    targets = np.array([classes.index(row.label) for row in read])
    found = metrics.evaluate(
        name=name,
        class_names=classes.names,
        probabilities=np.array([list(answer.probabilities.values()) for answer in answers]),
        targets=targets,
        paths=[row.path for row in read],
        subtypes=[row.subtype for row in read],
        unreadable=unreadable,
        provenance=facts | {"model_sha256": classifier.card.model_sha256},
    )
    card = classifier.card
    if card.trust is None:
        return found
    trust = trust_figures(answers, targets, card.temperature, card.trust.calibrated_on)
    return replace(found, trust=trust)


def write_evaluation(
    evaluation: Evaluation, classifier: Classifier, root: Path, folder: Path
) -> None:
    """`evaluation.json`, `confusion.png`, `recalls.png` and `report.html` in the folder.

    `trust.png` too, of a calibrated model.

    `root` is the folder that the evaluation's paths are relative to.
    """
    colours = [cell_class.colour for cell_class in classifier.card.classes]
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "evaluation.json") as temporary:
        temporary.write_bytes(to_json(evaluation))
    figures = {
        "confusion.png": draw_confusion(evaluation),
        "recalls.png": draw_recalls(evaluation, colours),
    }
    if evaluation.trust is not None:
        figures["trust.png"] = draw_trust(evaluation.trust)
    for name, png in figures.items():
        with written_whole(folder / name) as temporary:
            temporary.write_bytes(png)
    page = evaluation_page(evaluation, classifier, root, list(figures.values()))
    with written_whole(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
