"""Labelled images → those whose label is probably wrong, by confident learning.

Each image is judged by a network that never saw it: a given one, or that of a cross-validation.
"""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.bundle.classifier import Classifier
from hemascope.data.manifest import Manifest, ManifestError, check_labels
from hemascope.data.sites import cells_of
from hemascope.data.splits import with_hashes
from hemascope.provenance import data_hash, provenance
from hemascope.reports.pages import GALLERY, audit_page
from hemascope.results import Audit, Prediction, Suspect, to_json, write_whole, written_whole

Progress = Callable[[int, int], None]
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


def audit(judged: Judged, name: str, progress: Progress | None = None) -> Audit:
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


def ranked_issues(targets: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[int]:
    """Places of labels (N,) that the probabilities (N,C) speak against, the least likely first."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes that these labels have none of
        places = find_label_issues(
            targets, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    # where the network agrees with the label there is nothing to look at
    return [int(place) for place in places if probabilities[place].argmax() != targets[place]]


def write_audit(found: Audit, judged: Judged, folder: Path) -> None:
    """`audit.csv`, `audit.json` and `audit.html`, a gallery of the first, in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "audit.json", to_json(found))
    with (
        written_whole(folder / "audit.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, ["rank", *(field.name for field in fields(Suspect))])
        writer.writeheader()
        for rank, suspect in enumerate(found.suspects, 1):
            writer.writerow({"rank": rank, **asdict(suspect)})
    shown = list(_shown(found.suspects[:GALLERY], judged))
    write_whole(folder / "audit.html", audit_page(found, shown, judged[0][0]))


def _shown(
    suspects: Sequence[Suspect], judged: Judged
) -> Iterator[tuple[Suspect, Prediction, Classifier]]:
    """The suspects with their class maps, by the classifier that judged them."""
    places = {row.path: (classifier, part.root) for classifier, part in judged for row in part.rows}
    for suspect in suspects:
        classifier, root = places[suspect.path]
        (answer,) = classifier.predict(str(root / suspect.path), class_maps=True)
        yield suspect, answer, classifier
