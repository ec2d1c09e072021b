"""`hemascope survey`: will the model work on these images, and which cells to label."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hemascope.batch.inputs import find_inputs
from hemascope.cli.options import (
    BundlePath,
    Force,
    ImageList,
    MaxPixels,
    Threads,
    UmPerPixel,
    bundle_folder,
    limit_pixels,
    open_bundle,
)
from hemascope.cli.terminal import escape, out, print_warning, progress_bar, refuse_existing, share
from hemascope.evaluation.survey import Survey
from hemascope.evaluation.survey import survey as look
from hemascope.inference.classifier import Classifier
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.reports.survey_page import SURVEY_FILE, write_survey


def survey(
    images: ImageList,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")] = Path("survey"),
    label: int = 0,
    against: Path | None = None,
    bundle: BundlePath = None,
    um_per_pixel: UmPerPixel = None,
    threads: Threads = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Look at a laboratory's images without labels: will the model work, and what helps most.

    Writes a page and survey.json: scale, stain and light, what would be named and sent to review,
    and the accuracy to expect. Up to 400 images are drawn at random and looked at.

    Parameters
    ----------
    images
        Files, folders (with all below them), patterns like 'slides/*.png' or manifests (.csv).
    out_folder
        Folder of the page and the JSON.
    label
        Choose so many cells to label, and copy them to the folder to_label, in one folder per named
        class; to_label.csv lists the same. Correct either, and give it to 'hemascope adapt'.
    against
        An adapted bundle: has stain, light or focus changed since then? This exits with 1 if so.
    """
    limit_pixels(max_pixels)
    if label < 0:
        raise ValueError(f"--label must be a number of cells, not {label}")
    if against is not None and bundle is not None:
        raise ValueError("give either --bundle or --against, whose bundle is used then")
    refuse_existing(force, out_folder / SURVEY_FILE)
    inputs = find_inputs(images)
    classifier = Classifier(open_bundle(against or bundle_folder(bundle), None), threads)
    folder = ", ".join(images)
    with progress_bar("surveying") as progress:
        found = look(classifier, inputs, folder, um_per_pixel, label, against is not None, progress)
    write_survey(found, classifier, um_per_pixel, out_folder)
    _print(found)
    out.print(
        f"{found.surveyed} of {found.found} images surveyed; written to "
        f"{escape(str(out_folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 1 if found.drift is not None and found.drift.alarm else 0


def _print(found: Survey) -> None:
    expected, review = found.expected, found.to_review
    lines = [
        f"accuracy to expect: {share(expected.value)} ({share(expected.low)} – "
        f"{share(expected.high)}), to review: {share(review.value)}",
        found.advice,
    ]
    if found.drift is not None and not found.drift.alarm:
        lines.insert(0, f"no change since the bundle was adapted (p = {found.drift.p_value:.3f})")
    for line in lines:
        out.print(escape(line), soft_wrap=True, highlight=False)
    if found.drift is not None and found.drift.alarm:
        print_warning(
            f"the images are {', '.join(found.drift.changes)} than those that the bundle was "
            "adapted to: check stain, lamp and focus, or adapt it to some of these cells"
        )
