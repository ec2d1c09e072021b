"""Evaluations and audits as files: JSON, figures and pages in one folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from hemascope.data.external import LabelledCell
from hemascope.evaluation.audit import Judged
from hemascope.files import atomic_path, write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.records import Audit, Evaluation, Prediction, Suspect
from hemascope.reports.figures import draw_appearance, draw_confusion, draw_recalls, draw_trust
from hemascope.reports.pages import GALLERY, audit_page, evaluation_page
from hemascope.serialization import to_json


def write_evaluation(
    evaluation: Evaluation, classifier: Classifier, cells: Sequence[LabelledCell], folder: Path
) -> None:
    """`evaluation.json`, `confusion.png`, `recalls.png` and `report.html` in the folder.

    `trust.png` too, of a calibrated model, and `appearance.png` where a site's images were compared
    with others. `cells` are those that were evaluated.
    """
    colours = [cell_class.colour for cell_class in classifier.card.classes]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "evaluation.json", to_json(evaluation))
    figures = {
        "confusion.png": draw_confusion(evaluation),
        "recalls.png": draw_recalls(evaluation, colours),
    }
    if evaluation.trust is not None:
        figures["trust.png"] = draw_trust(evaluation.trust)
    site = evaluation.site
    if site is not None and site.reference:
        figures["appearance.png"] = draw_appearance(
            site.appearance, evaluation.name, site.reference
        )
    for name, png in figures.items():
        write_atomic(folder / name, png)
    page = evaluation_page(evaluation, classifier, cells, list(figures.values()))
    write_atomic(folder / "report.html", page)


def write_audit(found: Audit, judged: Judged, folder: Path) -> None:
    """`audit.csv`, `audit.json` and `audit.html`, a gallery of the first, in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "audit.json", to_json(found))
    with (
        atomic_path(folder / "audit.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, ["rank", *(field.name for field in fields(Suspect))])
        writer.writeheader()
        for rank, suspect in enumerate(found.suspects, 1):
            writer.writerow({"rank": rank, **asdict(suspect)})
    shown = list(_shown(found.suspects[:GALLERY], judged))
    write_atomic(folder / "audit.html", audit_page(found, shown, judged[0][0]))


def _shown(
    suspects: Sequence[Suspect], judged: Judged
) -> Iterator[tuple[Suspect, Prediction, Classifier]]:
    """The suspects with their class maps, by the classifier that judged them."""
    places = {row.path: (classifier, part.root) for classifier, part in judged for row in part.rows}
    for suspect in suspects:
        classifier, root = places[suspect.path]
        (answer,) = classifier.predict(str(root / suspect.path), class_maps=True)
        yield suspect, answer, classifier
