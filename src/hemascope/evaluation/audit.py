"""Labelled images → those whose label is probably wrong, by confident learning.

Each image is predicted by a network that never saw it: a given one, or that of a cross-validation.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hemascope.arrays import FloatArray, IntArray, ProgressCallback
from hemascope.data.manifest import Manifest, ManifestRow, check_labels
from hemascope.data.splits import add_hashes, list_units
from hemascope.errors import ManifestError
from hemascope.inference.classifier import Classifier
from hemascope.predictions import Prediction
from hemascope.provenance import data_hash, provenance
from hemascope.records import Audit, LabelIssue
from hemascope.training.recipe import Recipe, StartFrom

AuditedImages = Sequence[tuple[Classifier, Manifest]]
"""Classifiers of the same classes, and the images that each predicts, which it never saw."""


def split_folds(manifest: Manifest, folds: int) -> Iterator[tuple[Manifest, Manifest]]:
    """What to train on and what to predict, fold by fold; of each class a like part each time.

    Copies of one file stay together, and so do the cells of one group. Raises ManifestError for
    fewer images of a class than folds.
    """
    counts = Counter(row.label for row in manifest.rows)
    for label, count in counts.items():
        if count < folds:
            raise ManifestError(
                f"{manifest.root}: {count} images of class '{label}' for {folds} folds; ask for "
                "fewer folds, or leave the class out"
            )
    rows = add_hashes(manifest).rows
    fold_of: dict[ManifestRow, int] = {}
    seen: Counter[str] = Counter()
    firsts = {
        min((row.label, row.sha256) for row in unit): unit for unit in list_units(rows).values()
    }
    for (label, _), unit in sorted(firsts.items()):
        fold_of |= {row: seen[label] % folds for row in unit}
        seen[label] += 1
    for fold in range(folds):
        here = [fold_of[row] == fold for row in rows]
        others = tuple(
            replace(row, split="train") for row, held in zip(rows, here, strict=True) if not held
        )
        held_out = tuple(
            replace(row, split="") for row, held in zip(rows, here, strict=True) if held
        )
        yield Manifest(manifest.root, others), Manifest(manifest.root, held_out)


def train_folds(
    recipe: Recipe,
    manifest: Manifest,
    folder: Path,
    folds: int,
    *,
    start_from: StartFrom | None = None,
    cache: Path | None = None,
    on_read: ProgressCallback | None = None,
    on_step: ProgressCallback | None = None,
) -> list[tuple[Classifier, Manifest]]:
    """A network for each fold, trained on the images of the others, and the fold's images.

    The runs are `fold0`, `fold1`, … in the folder; one that was begun goes on. All images of the
    other folds are trained on, none held out. Raises as `split_folds` and `train` do.
    """
    from hemascope.training.run import train

    recipe = replace(recipe, val_fraction=0.0)
    audited = []
    for fold, (others, held_out) in enumerate(split_folds(manifest, folds)):
        path = folder / f"fold{fold}"
        begun = (path / "recipe.json").exists()
        run = train(
            recipe,
            others,
            path,
            resume=begun,
            start_from=None if begun else start_from,
            cache=cache,
            on_read=on_read,
            on_step=on_step,
        )
        audited.append((Classifier(run.bundle), held_out))
    return audited


def audit(audited: AuditedImages, name: str, progress: ProgressCallback | None = None) -> Audit:
    """Ranks the images whose label is probably wrong, the likeliest first. Needs cleanlab.

    Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
    Journal of Artificial Intelligence Research 70 (2021). Raises ManifestError for a label that the
    classifiers do not know, or where no image can be read.
    """
    classes = audited[0][0].card.classes
    paths, labels, predictions, unreadable = _predict_all(audited, progress)
    if not predictions:
        raise ManifestError(f"{name}: none of {len(unreadable)} images could be read")
    probabilities = np.array(
        [list(prediction.probabilities.values()) for prediction in predictions]
    )
    targets = np.array([classes.index(label) for label in labels])
    issues = [
        LabelIssue(
            path=paths[index],
            label=labels[index],
            suggested=str(predictions[index].label),
            probability_of_label=predictions[index].probabilities[labels[index]],
            probability_of_suggested=float(predictions[index].probability or 0),
        )
        for index in rank_issues(targets, probabilities)
    ]
    pairs = Counter(f"{issue.label} → {issue.suggested}" for issue in issues)
    return Audit(
        name=name,
        n=len(predictions),
        agreed=int((probabilities.argmax(axis=1) == targets).sum()),
        issues=tuple(issues),
        pairs=dict(pairs.most_common()),
        unreadable=tuple(unreadable),
        provenance=provenance(data_hash(zip(paths, labels, strict=True))),
    )


def _predict_all(
    audited: AuditedImages, progress: ProgressCallback | None
) -> tuple[list[str], list[str], list[Prediction], list[str]]:
    """Names, labels and Predictions of the cells that can be read; why the others cannot be."""
    paths: list[str] = []
    labels: list[str] = []
    predictions: list[Prediction] = []
    unreadable: list[str] = []
    total = sum(len(manifest.rows) for _, manifest in audited)
    for classifier, manifest in audited:
        classes = audited[0][0].card.classes
        check_labels(((row.path, row.label) for row in manifest.rows), classes)
        streamed = classifier.stream(manifest.views())
        for row, cell, prediction in zip(manifest.rows, manifest.names(), streamed, strict=True):
            if prediction.label is None:
                unreadable.append(f"{cell}: {prediction.status}")
            else:
                predictions.append(prediction)
                labels.append(row.label)
                paths.append(cell)
            if progress is not None:
                progress(len(predictions) + len(unreadable), total)
    return paths, labels, predictions, unreadable


def rank_issues(targets: IntArray, probabilities: FloatArray) -> list[int]:
    """Places of labels (N,) that the probabilities (N,C) speak against, the least likely first."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that these labels have none of
        indices = find_label_issues(
            targets, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    # where the network agrees with the label there is nothing to look at
    return [int(index) for index in indices if probabilities[index].argmax() != targets[index]]
