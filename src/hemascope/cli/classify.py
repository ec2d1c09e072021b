"""`hemascope classify` and `explain`: what a model makes of images."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from hemascope.batch.extra_columns import ExtraColumns, choose_columns
from hemascope.batch.inputs import Inputs, check_some_exist, find_inputs, is_address, path_of
from hemascope.batch.local import classify_to, make_viewer
from hemascope.batch.path_list import read_paths
from hemascope.batch.style import describe_images
from hemascope.batch.tally import Tally
from hemascope.bundle.bundle import Bundle
from hemascope.cli.options import (
    BundlePath,
    Classes,
    Force,
    ImageList,
    MaxPixels,
    Threads,
    Tta,
    UmPerPixel,
    Workers,
    check_cluster,
    limit_pixels,
    open_bundle,
    scale_finder,
)
from hemascope.cli.terminal import (
    escape,
    out,
    print_error,
    print_warning,
    progress_bar,
    refuse_existing,
    share,
)
from hemascope.files import write_atomic
from hemascope.folders import PassedOver
from hemascope.inference.classifier import Classifier
from hemascope.preprocess import View
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.reports.pages import GALLERY, Gallery, classification_page, explanation_page
from hemascope.serialization import to_json
from hemascope.smear.field_check import note_fields
from hemascope.smear.locate import Locator

if TYPE_CHECKING:
    from hemascope.batch.cluster_inputs import Sources
    from hemascope.smear.measure_scales import ScaleFinder


def classify(
    images: ImageList,
    *,
    out_file: Annotated[str | None, Parameter(name="--out")] = None,
    report: Path | None = None,
    summary: Path | None = None,
    bundle: BundlePath = None,
    tta: Tta = False,
    um_per_pixel: UmPerPixel = None,
    classes: Classes = None,
    attributes: Annotated[bool, Parameter(negative="")] = False,
    subtypes: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
    resume: Annotated[bool, Parameter(negative="")] = False,
    cluster: Annotated[bool, Parameter(negative="")] = False,
    workers: Workers = None,
    threads: Threads = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Classify the cell in each image.

    Parameters
    ----------
    images
        Files, folders (with all below them, links followed), patterns like 'slides/*.png',
        manifests (.csv), whose rows may have a scale and a place of their own, or - to read one
        path per line from standard input, with the line ends and the encoding of any system. With
        --cluster also addresses, such as s3://bucket/folder, and Parquet files with the columns
        path and bytes.
    out_file
        The table: .csv, .jsonl or .parquet. One row per image: path, label, probability, status
        ("ok", or what is wrong with the file), and p_CLASS for every class. A name without a
        suffix is a folder of Parquet files, of 5,000 rows each. By default predictions.csv, and
        with --cluster, which writes folders only, predictions.
    report
        Write a page as well (.html): counts per class and a gallery with activation maps.
    summary
        Write the counts as well (.json): per class, for review and why, and by laboratory, with
        what differs from the training images.
    attributes
        Write what each cell looks like as well: description, in words, and for each attribute its
        likeliest value and the probability of that. For bundles that tell attributes.
    subtypes
        Write the subtype as well, such as band or segmented neutrophil, and ps_SUBTYPE, the
        probability of each; those of a class sum to p_CLASS. For bundles that tell subtypes.
    strict
        Exit with 1 if any image or folder cannot be read.
    resume
        Continue a table that was begun and stopped, in whatever way; no row is lost or doubled.
    cluster
        Classify on a Ray cluster, by RAY_ADDRESS or else one started here; folders must be on a
        disk that all its machines share. Needs 'hemascope[cluster]'.
    """
    limit_pixels(max_pixels)
    _check_options(cluster, workers, threads, um_per_pixel, report, resume)
    refuse_existing(force, report, summary)
    opened = open_bundle(bundle, classes)
    settings = _Settings(
        out_file or ("predictions" if cluster else "predictions.csv"),
        opened,
        choose_columns(opened.card, attributes, subtypes),
        um_per_pixel,
        tta,
        resume,
        force,
    )
    if cluster:
        made = _classify_on_cluster(images, settings, workers)
    else:
        made = _classify_here(images, settings, threads, report)
    if summary is not None:
        write_atomic(summary, to_json({"tally": made.tally, "difference": made.difference}))
    _print_tally(made.tally)
    _print_notes(made)
    written = " and ".join(str(path) for path in (settings.table, report, summary) if path)
    _print_last_line(str(made.tally), made.passed_over, written)
    return _exit_status(images, made.tally, made.passed_over, strict)


@dataclass(frozen=True)
class _Settings:
    """What the options of `classify` say of any run, here or on a cluster."""

    table: str
    bundle: Bundle
    extra: ExtraColumns
    um_per_pixel: float | Literal["auto"] | None
    tta: bool
    resume: bool
    force: bool

    @property
    def scale(self) -> float | None:
        """The scale that is given for all images; None where it is measured, or not known."""
        return None if self.um_per_pixel == "auto" else self.um_per_pixel


@dataclass(frozen=True)
class _Made:
    """What `classify` has to report; `field_note` and `finder` only of a run on this machine."""

    tally: Tally
    difference: str
    passed_over: PassedOver
    field_note: str = ""
    finder: ScaleFinder | None = None


def _check_options(
    cluster: bool,
    workers: int | None,
    threads: int | None,
    um_per_pixel: float | Literal["auto"] | None,
    report: Path | None,
    resume: bool,
) -> None:
    """Raises ValueError for options that exclude each other."""
    check_cluster(cluster, workers, threads)
    if report is not None and (cluster or resume):
        other = "classify on a --cluster" if cluster else "continue with --resume"
        raise ValueError(f"a page is of all images; leave --report out to {other}")
    if um_per_pixel == "auto" and cluster:
        raise ValueError("--um-per-pixel auto is for this machine alone; give a --cluster a number")


def _classify_on_cluster(images: list[str], settings: _Settings, workers: int | None) -> _Made:
    from hemascope.batch.cluster import classify_on_cluster

    sources = _sources(images)
    with progress_bar("classifying") as progress:
        tally = classify_on_cluster(
            settings.table,
            settings.bundle,
            sources,
            um_per_pixel=settings.scale,
            tta=settings.tta,
            extra=settings.extra,
            resume=settings.resume,
            force=settings.force,
            workers=workers,
            progress=progress,
        )
    return _Made(tally, tally.describe_difference(settings.scale), sources.passed_over)


def _classify_here(
    images: list[str], settings: _Settings, threads: int | None, report: Path | None
) -> _Made:
    if is_address(settings.table):
        raise ValueError(f"{settings.table}: an object store is written to with --cluster")
    classifier = Classifier(settings.bundle, threads, settings.tta)
    inputs = _inputs(images)
    finder = scale_finder() if settings.um_per_pixel == "auto" else None
    gallery = None if report is None else Gallery()
    with progress_bar("classifying") as progress:
        tally = classify_to(
            Path(settings.table),
            classifier,
            inputs.items,
            None if gallery is None else gallery.add,
            progress,
            settings.scale,
            view_of=None if finder is None else finder.view,
            extra=settings.extra,
            resume=settings.resume,
            force=settings.force,
        )
        scale = settings.scale if finder is None else finder.usual
        style = describe_images(classifier, inputs.items, scale, tally)
        difference = tally.describe_difference(scale, style)
        if report is not None and gallery is not None:
            page = classification_page(gallery, tally, classifier, inputs.passed_over, difference)
            write_atomic(report, page)
        whole = [item for item in inputs.items if isinstance(item, str)]
        note = note_fields(whole, Locator.from_bundle) if whole else ""
    return _Made(tally, difference, inputs.passed_over, note, finder)


def _print_notes(made: _Made) -> None:
    """What the user should know beside the counts."""
    if made.field_note:
        print_warning(made.field_note)
    if made.finder is not None:
        out.print(escape(str(made.finder)), soft_wrap=True, highlight=False)
    if made.difference:
        print_warning(made.difference)


def explain(
    images: ImageList,
    *,
    out_file: Annotated[Path, Parameter(name="--out")] = Path("explanation.html"),
    bundle: BundlePath = None,
    um_per_pixel: UmPerPixel = None,
    classes: Classes = None,
    search_mask: Annotated[bool, Parameter(negative="")] = False,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Show where an image supports the predicted class, and the runner-up.

    Writes one page. Each map is the class activation map, averaged over the eight
    symmetries of the square.

    Parameters
    ----------
    images
        Files, folders (with all below them) or patterns like 'slides/*.png'; at most 400 images.
    out_file
        The page.
    search_mask
        Search for maps that do well by the deletion and insertion curves: variations of each map
        are tried for those whose strongest places bring the class when they are shown alone, and
        undo it when they are removed. This takes seconds per image. The curves are then no
        measure of the map, because it was optimised on them.
    """
    limit_pixels(max_pixels)
    refuse_existing(force, out_file)
    inputs = find_inputs(images)
    items = inputs.items
    if len(items) > GALLERY:
        raise ValueError(f"{len(items)} images are too many for one page; give {GALLERY} at most")
    classifier = Classifier(open_bundle(bundle, classes))
    finder = scale_finder() if um_per_pixel == "auto" else None
    scale = None if um_per_pixel == "auto" else um_per_pixel
    viewer = make_viewer(finder.view if finder else partial(View, um_per_pixel=scale))
    predictions = classifier.predict(list(map(viewer, items)))
    if finder is not None:
        out.print(escape(str(finder)), soft_wrap=True, highlight=False)
    unreadable = sum(prediction.label is None for prediction in predictions)
    if unreadable == len(items):
        raise ValueError(f"{path_of(items[0])}: {predictions[0].status}; no image could be read")
    with progress_bar("explaining") as progress:
        page = explanation_page(predictions, classifier, progress, search_mask)
    write_atomic(out_file, page)
    done = f"{len(items) - unreadable} images explained, {unreadable} could not be read"
    _print_last_line(done, inputs.passed_over, str(out_file))
    return 0


def _inputs(images: list[str]) -> Inputs:
    """The images that are given, of which `-` stands for a list on standard input."""
    return Inputs(_listed_paths()) if images == ["-"] else find_inputs(images)


def _sources(images: list[str]) -> Sources:
    from hemascope.batch.cluster_inputs import Sources, find_sources

    return Sources(_listed_paths(), []) if images == ["-"] else find_sources(images)


def _listed_paths() -> list[str]:
    paths = read_paths(sys.stdin.buffer.read())
    if not paths:
        raise ValueError("standard input lists no images")
    check_some_exist(paths, "standard input")
    return paths


def _exit_status(images: list[str], tally: Tally, passed_over: PassedOver, strict: bool) -> int:
    """1 where a list names nothing that can be read, or where `--strict` says so."""
    is_list = images == ["-"] or all(name.lower().endswith(".csv") for name in images)
    if is_list and tally.classified == 0:
        print_error("none of the listed images could be read; the table says why")
        return 1
    return 1 if strict and (tally.unreadable or passed_over.unreadable) else 0


def _print_last_line(done: str, passed_over: PassedOver, written: str) -> None:
    rest = f"; passed over: {passed_over}" if passed_over else ""
    line = escape(f"{done}{rest}; written to {written}")
    out.print(f"{line}. {RESEARCH_USE_ONLY}", soft_wrap=True)


def _print_tally(tally: Tally) -> None:
    table = Table("class", "sure", "share of the sure", "to review")
    whole = max(sum(tally.sure.values()), 1)
    for name, count in tally.sure.items():
        to_review = "–" if tally.to_review is None else str(tally.to_review[name])
        table.add_row(escape(name), str(count), share(count / whole), to_review)
    out.print(table)
