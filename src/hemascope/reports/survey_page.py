"""A survey as files: a page, JSON, and the cells to label."""

from __future__ import annotations

import shutil
from itertools import zip_longest
from pathlib import Path

from hemascope.bundle.card import Card
from hemascope.data.manifest import Manifest, ManifestRow, write_manifest
from hemascope.evaluation.survey import Survey
from hemascope.files import remove_torn, write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.reports.render import render
from hemascope.serialization import to_json
from hemascope.uncertainty.image_style import MEASURES, ImageStyle

SURVEY_FILE, PAGE, TO_LABEL = "survey.json", "survey.html", "to_label"


def write_survey(
    survey: Survey, classifier: Classifier, um_per_pixel: float | None, folder: Path
) -> None:
    """`survey.html`, `survey.json`, and where cells were chosen `to_label` and `to_label.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    if survey.to_label:
        _copy_cells(survey, classifier, um_per_pixel, folder)
    # The JSON last: a folder without it is one that was not finished.
    page = survey_page(survey, classifier.card)
    files: dict[str, str | bytes] = {PAGE: page, SURVEY_FILE: to_json(survey)}
    for name, content in files.items():
        remove_torn(folder / name)
        write_atomic(folder / name, content)


def survey_page(survey: Survey, card: Card) -> str:
    """The survey as one page."""
    home = survey.home or ImageStyle((), ())
    shifts = () if survey.drift is None else survey.drift.shifts
    columns = (survey.style.median, survey.style.spread, home.median, home.spread, shifts)
    keys = ("name", "median", "spread", "home", "home_spread", "shift")
    # A model or a survey of an earlier version has no fifth measure.
    styles = [
        dict(zip(keys, row, strict=True))
        for row in zip_longest(MEASURES, *columns)
        if row[1] is not None
    ]
    return render("survey.html.j2", survey=survey, styles=styles, card=card)


def _copy_cells(
    survey: Survey, classifier: Classifier, um_per_pixel: float | None, folder: Path
) -> None:
    """Copies the chosen images into a folder per class, an empty one for each other class."""
    target, rows = folder / TO_LABEL, []
    if target.exists():
        shutil.rmtree(target)
    for name in classifier.card.classes.names:
        (target / name).mkdir(parents=True)
    for number, (source, label) in enumerate(survey.to_label, 1):
        path = Path(label, f"{number:03d}_{Path(source).name}")
        shutil.copyfile(source, target / path)
        rows.append(ManifestRow(f"{TO_LABEL}/{path.as_posix()}", label, um_per_pixel=um_per_pixel))
    write_manifest(Manifest(folder, tuple(rows)), folder / f"{TO_LABEL}.csv", overwrite=True)
