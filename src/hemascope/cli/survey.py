"""`hemascope survey`: will the model work on these images, and which cells to label."""

from __future__ import annotations

from dataclasses import replace
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
    limit_pixels,
    open_bundle,
    settle_scale,
)
from hemascope.cli.terminal import escape, out, print_warning, progress_bar, refuse_existing, share
from hemascope.data.masks import describe_masks
from hemascope.evaluation.survey import Reference, Survey, reference_of
from hemascope.evaluation.survey import survey as look
from hemascope.inference.classifier import Classifier
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.reports.survey_page import SURVEY_FILE, write_survey
from hemascope.serialization import from_json


def survey(
    images: ImageList,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")] = Path("survey"),
    label: int = 0,
    against: Path | None = None,
    bundle: BundlePath = None,
    um_per_pixel: UmPerPixel = "auto",
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
        The folder of an earlier survey with the same --bundle, or an adapted bundle, which is used
        then: has stain, light or focus changed since? This exits with 1 if so. A survey is the
        better measure: cells chosen for labelling are not like those of every day.
    """
    limit_pixels(max_pixels)
    refuse_existing(force, out_folder / SURVEY_FILE)
    if label < 0:
        raise ValueError(f"--label must be a number of cells, not {label}")
    inputs = find_inputs(images)
    classifier, reference = _open(bundle, against, threads)
    scale = settle_scale(um_per_pixel, inputs.images, classifier.bundle)
    width = scale.um_per_pixel
    with progress_bar("surveying") as progress:
        found = look(classifier, inputs, ", ".join(images), width, label, reference, progress)
    found = replace(found, scale_note=scale.note, cell_scale=scale.measured)
    write_survey(found, classifier, width, out_folder)
    return _print(found, out_folder)


def _open(
    bundle: Path | None, against: Path | None, threads: int | None
) -> tuple[Classifier, Reference | None]:
    """The classifier, and the earlier images that --against names: a survey's, or a bundle's own.

    Raises ValueError where both options name a bundle.
    """
    if against is None:
        return Classifier(open_bundle(bundle, None), threads), None
    earlier = _read_survey(against)
    if earlier is None and bundle is not None:
        raise ValueError("give either --bundle or an adapted bundle as --against, not both")
    classifier = Classifier(open_bundle(bundle if earlier else against, None), threads)
    return classifier, reference_of(earlier or classifier.bundle, classifier.card.name)


def _read_survey(folder: Path) -> Survey | None:
    """The survey in a folder; None where there is none."""
    path = folder / SURVEY_FILE
    return from_json(path.read_bytes(), Survey) if path.exists() else None


def _print(found: Survey, folder: Path) -> int:
    """Prints what was found, and gives the exit status: 1 where something has changed."""
    expected, review = found.expected, found.to_review
    lines = [
        f"accuracy to expect: {share(expected.value)} ({share(expected.low)} – "
        f"{share(expected.high)}), to review: {share(review.value)}",
        found.advice,
    ]
    if found.drift is not None and not found.drift.alarm:
        lines.insert(0, f"no change since then (p = {found.drift.p_value:.3f})")
    for line in lines:
        out.print(escape(line), soft_wrap=True, highlight=False)
    if found.drift is not None and found.drift.alarm:
        print_warning(
            f"the images are {', '.join(found.drift.changes)} than the earlier ones: "
            "check stain, lamp and focus, or adapt the bundle to some of these cells"
        )
    if found.masks:
        print_warning(describe_masks(found.masks))
    out.print(
        f"{found.surveyed} of {found.found} images surveyed; written to "
        f"{escape(str(folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 1 if found.drift is not None and found.drift.alarm else 0
