"""Evaluations and audits as files: JSON, figures and pages in one folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from hemascope.data.manifest import Manifest
from hemascope.escaping import escape_formula
from hemascope.evaluation.audit import AuditedImages
from hemascope.files import atomic_path, remove_torn, write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.records import Audit, Evaluation, LabelIssue
from hemascope.reports.figures import (
    draw_appearance,
    draw_confusion,
    draw_maturation,
    draw_recalls,
    draw_uncertainty,
)
from hemascope.reports.pages import GALLERY, ExplainedIssue, audit_page, evaluation_page
from hemascope.serialization import to_json


def write_evaluation(
    evaluation: Evaluation, classifier: Classifier, manifest: Manifest, folder: Path
) -> None:
    """`evaluation.json`, `confusion.png`, `recalls.png` and `report.html` in the folder.

    `uncertainty.png` too, of a calibrated model, and `appearance.png` where a site's images were
    compared with others, and `maturation.png` where subtypes were measured. `manifest` is what was
    evaluated.
    """
    colours = [cell_class.colour for cell_class in classifier.card.classes]
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "confusion.png": draw_confusion(evaluation),
        "recalls.png": draw_recalls(evaluation, colours),
    }
    if evaluation.uncertainty is not None:
        figures["uncertainty.png"] = draw_uncertainty(evaluation.uncertainty)
    site = evaluation.site
    if site is not None and site.reference:
        figures["appearance.png"] = draw_appearance(
            site.appearance, evaluation.name, site.reference
        )
    seen = evaluation.morphology
    if seen is not None and seen.maturation is not None:
        figures["maturation.png"] = draw_maturation(seen.maturation)
    page = evaluation_page(evaluation, classifier, manifest, list(figures.values()))
    # The JSON last: a folder without it is one that was not finished.
    files: dict[str, str | bytes] = {
        **figures,
        "report.html": page,
        "evaluation.json": to_json(evaluation),
    }
    for name, content in files.items():
        remove_torn(folder / name)
        write_atomic(folder / name, content)


def write_audit(audit: Audit, audited: AuditedImages, folder: Path) -> None:
    """`audit.csv`, `audit.json` and `audit.html`, a gallery of the first, in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = list(_explain_issues(audit.issues[:GALLERY], audited))
    files: dict[str, str | bytes] = {
        "audit.json": to_json(audit),
        "audit.html": audit_page(audit, shown, audited[0][0]),
    }
    for name, content in files.items():
        remove_torn(folder / name)
        write_atomic(folder / name, content)
    remove_torn(folder / "audit.csv")  # written last: its absence says that more is to be done
    with (
        atomic_path(folder / "audit.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, ["rank", *(field.name for field in fields(LabelIssue))])
        writer.writeheader()
        for rank, issue in enumerate(audit.issues, 1):
            values = {name: escape_formula(value) for name, value in asdict(issue).items()}
            writer.writerow({"rank": rank} | values)


def _explain_issues(
    issues: Sequence[LabelIssue], audited: AuditedImages
) -> Iterator[ExplainedIssue]:
    """The label issues with their class maps, by the classifier that predicted them."""
    sources = {
        name: (classifier, view)
        for classifier, part in audited
        for name, view in zip(part.names(), part.views(), strict=True)
    }
    for issue in issues:
        classifier, view = sources[issue.path]
        (prediction,) = classifier.predict(view, class_maps=True)
        yield issue, view, prediction, classifier
