"""Labelled images → those whose label is probably wrong, by confident learning.

Each image is judged by a network that never saw it: a given one, or that of a cross-validation.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from hemascope.arrays import FloatArray, IntArray, ProgressCallback
from hemascope.data.external import cells_of
from hemascope.data.manifest import Manifest, ManifestError, check_labels
from hemascope.data.splits import with_hashes
from hemascope.inference.classifier import Classifier
from hemascope.provenance import data_hash, provenance
from hemascope.records import Audit, Prediction, Suspect

Judged = Sequence[tuple[Classifier, Manifest]]
"""Classifiers of the same classes, and the images that each judges, which it never saw."""


def fold_splits(manifest: Manifest, folds: int) -> Iterator[tuple[Manifest, Manifest]]:
    """What to train on and what to judge, fold by fold; of each class a like part is judged.

    Copies of one file stay together. Raises ManifestError for fewer images of a class than folds.
    """
    counts = Counter(row.label for row in manifest.rows)
    for label, count in counts.items():
        if count < folds:
            raise ManifestError(
                f"{manifest.root}: {count} images of class '{label}' for {folds} folds; ask for "
                "fewer folds, or leave the class out"
            )
    places: dict[tuple[str, str], int] = {}
    seen: Counter[str] = Counter()
    for row in sorted(with_hashes(manifest).rows, key=lambda row: (row.label, row.sha256)):
        if (row.label, row.sha256) not in places:
            places[row.label, row.sha256] = seen[row.label] % folds
            seen[row.label] += 1
    rows = with_hashes(manifest).rows
    for fold in range(folds):
        here = [places[row.label, row.sha256] == fold for row in rows]
        others = tuple(
            replace(row, split="train") for row, held in zip(rows, here, strict=True) if not held
        )
        held_out = tuple(
            replace(row, split="") for row, held in zip(rows, here, strict=True) if held
        )
        yield Manifest(manifest.root, others), Manifest(manifest.root, held_out)


def audit(judged: Judged, name: str, progress: ProgressCallback | None = None) -> Audit:
    """Ranks the images whose label is probably wrong, the likeliest first. Needs cleanlab.

    Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels",
    Journal of Artificial Intelligence Research 70 (2021). Raises ManifestError for a label that the
    classifiers do not know, or where no image can be read.
    """
    classes = judged[0][0].card.classes
    total = sum(len(part.rows) for _, part in judged)
    answers: list[Prediction] = []
    labels: list[str] = []
    paths: list[str] = []
    unreadable: list[str] = []
    for classifier, part in judged:
        check_labels(((row.path, row.label) for row in part.rows), classes)
        predictions = classifier.stream([cell.view for cell in cells_of(part)])
        for row, answer in zip(part.rows, predictions, strict=True):
            if answer.label is None:
                unreadable.append(f"{row.path}: {answer.status}")
            else:
                answers.append(answer)
                labels.append(row.label)
                paths.append(row.path)
            if progress is not None:
                progress(len(answers) + len(unreadable), total)
    if not answers:
        raise ManifestError(f"{name}: none of {total} images could be read")
    probabilities = np.array([list(answer.probabilities.values()) for answer in answers])
    targets = np.array([classes.index(label) for label in labels])
    found = [
        Suspect(
            path=paths[place],
            label=labels[place],
            suggested=str(answers[place].label),
            probability_of_label=answers[place].probabilities[labels[place]],
            probability_of_suggested=float(answers[place].probability or 0),
        )
        for place in ranked_issues(targets, probabilities)
    ]
    pairs = Counter(f"{suspect.label} → {suspect.suggested}" for suspect in found)
    return Audit(
        name=name,
        n=len(answers),
        agreed=int((probabilities.argmax(axis=1) == targets).sum()),
        suspects=tuple(found),
        pairs=dict(pairs.most_common()),
        unreadable=tuple(unreadable),
        provenance=provenance(data_hash(zip(paths, labels, strict=True))),
    )


def ranked_issues(targets: IntArray, probabilities: FloatArray) -> list[int]:
    """Places of labels (N,) that the probabilities (N,C) speak against, the least likely first."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that these labels have none of
        places = find_label_issues(
            targets, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    # where the network agrees with the label there is nothing to look at
    return [int(place) for place in places if probabilities[place].argmax() != targets[place]]
