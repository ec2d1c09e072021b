"""`hemascope classify`: images → a table of predictions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from hemascope.batch.extra_columns import ExtraColumns, choose_columns
from hemascope.batch.inputs import Inputs, Item, check_some_exist, find_inputs, is_address
from hemascope.batch.local import classify_to
from hemascope.batch.path_list import read_paths
from hemascope.batch.style import describe_images
from hemascope.batch.tally import Tally
from hemascope.bundle.bundle import Bundle
from hemascope.cli.options import (
    Force,
    ImageList,
    MachineOptions,
    Machines,
    MaxPixels,
    ModelOptions,
    Resume,
    UmPerPixel,
    limit_pixels,
    open_bundle,
    settle_scale,
)
from hemascope.cli.terminal import (
    escape,
    out,
    print_error,
    print_last_line,
    print_warning,
    progress_bar,
    refuse_existing,
    refuse_shared,
    share,
)
from hemascope.data.masks import note_masks
from hemascope.files import write_atomic
from hemascope.folders import PassedOver
from hemascope.inference.classifier import Classifier
from hemascope.reports.pages import Gallery, classification_page
from hemascope.serialization import to_json
from hemascope.smear.field_check import note_fields
from hemascope.smear.locate import Locator

if TYPE_CHECKING:
    from hemascope.batch.cluster_inputs import Sources
    from hemascope.smear.measure_scales import FoundScale


@dataclass(frozen=True)
class TableOptions:
    """What is written of each image."""

    out: str | None = None
    """The table: .csv, .jsonl or .parquet. One row per image: path, label, probability, status
    ("ok", or what is wrong with the file), and p_CLASS for every class. A name without a suffix is
    a folder of Parquet files, of 5,000 rows each. By default predictions.csv, and with --cluster,
    which writes folders only, predictions."""
    attributes: Annotated[bool, Parameter(negative="")] = False
    """Write what each cell looks like as well: description, in words, and for each attribute its
    likeliest value and the probability of that. For bundles that tell attributes."""
    subtypes: Annotated[bool, Parameter(negative="")] = False
    """Write the subtype as well, such as band or segmented neutrophil, and ps_SUBTYPE, the
    probability of each; those of a class sum to p_CLASS. For bundles that tell subtypes."""
    resume: Resume = False
    force: Force = False


def classify(
    images: ImageList,
    *,
    table: Annotated[TableOptions | None, Parameter(name="*")] = None,
    report: Path | None = None,
    summary: Path | None = None,
    model: Annotated[ModelOptions | None, Parameter(name="*")] = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    machines: MachineOptions = None,
    max_pixels: MaxPixels = None,
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
    report
        Write a page as well (.html): counts per class and a gallery with activation maps.
    summary
        Write the counts as well (.json): per class, for review and why, and by laboratory, with
        what differs from the training images.
    strict
        Exit with 1 if any image or folder cannot be read.
    """
    limit_pixels(max_pixels)
    table, machines = table or TableOptions(), machines or Machines()
    settings = _settle(table, model or ModelOptions(), machines, report, summary)
    made = _classify(images, settings, machines, report)
    if summary is not None:
        counts = {"tally": made.tally, "difference": made.difference, "scale": made.scale}
        write_atomic(summary, to_json(counts))
    _print_tally(made.tally)
    _print_notes(made)
    written = " and ".join(str(path) for path in (settings.table, report, summary) if path)
    print_last_line(str(made.tally), made.passed_over, written)
    return _exit_status(images, made.tally, made.passed_over, strict)


@dataclass(frozen=True)
class _Settings:
    """What the options of `classify` say of any run, here or on a cluster."""

    table: str
    bundle: Bundle
    extra: ExtraColumns
    um_per_pixel: UmPerPixel
    tta: bool
    resume: bool
    force: bool


def _settle(
    table: TableOptions,
    model: ModelOptions,
    machines: Machines,
    report: Path | None,
    summary: Path | None,
) -> _Settings:
    """The settings, with the bundle. Raises ValueError for options that exclude each other."""
    if report is not None and (machines.cluster or table.resume):
        other = "classify on a --cluster" if machines.cluster else "continue with --resume"
        raise ValueError(f"a page is of all images; leave --report out to {other}")
    refuse_existing(table.force, report, summary)
    refuse_shared(None if table.out is None else Path(table.out), report, summary)
    bundle = open_bundle(model.bundle, model.classes)
    return _Settings(
        table.out or ("predictions" if machines.cluster else "predictions.csv"),
        bundle,
        choose_columns(bundle.card, table.attributes, table.subtypes),
        model.um_per_pixel,
        model.tta,
        table.resume,
        table.force,
    )


@dataclass(frozen=True)
class _Made:
    """What `classify` has to report."""

    tally: Tally
    difference: str
    passed_over: PassedOver
    notes: tuple[str, ...]
    scale: FoundScale


def _classify(
    images: list[str], settings: _Settings, machines: Machines, report: Path | None
) -> _Made:
    if machines.cluster:
        return _classify_on_cluster(images, settings, machines.workers)
    return _classify_here(images, settings, machines.threads, report)


def _classify_on_cluster(images: list[str], settings: _Settings, workers: int | None) -> _Made:
    from hemascope.batch.cluster import classify_on_cluster
    from hemascope.batch.cluster_sample import sample_images
    from hemascope.smear.measure_scales import SAMPLE

    sources = _sources(images)
    sample = sample_images(sources, SAMPLE) if settings.um_per_pixel == "auto" else []
    scale = settle_scale(settings.um_per_pixel, sample, settings.bundle)
    with progress_bar("classifying") as progress:
        tally = classify_on_cluster(
            settings.table,
            settings.bundle,
            sources,
            um_per_pixel=scale.um_per_pixel,
            tta=settings.tta,
            extra=settings.extra,
            resume=settings.resume,
            force=settings.force,
            workers=workers,
            progress=progress,
        )
    difference = tally.describe_difference(scale.um_per_pixel)
    notes = (note_masks(_whole(sources.images)),)
    return _Made(tally, difference, sources.passed_over, notes, scale)


def _classify_here(
    images: list[str], settings: _Settings, threads: int | None, report: Path | None
) -> _Made:
    if is_address(settings.table):
        raise ValueError(f"{settings.table}: an object store is written to with --cluster")
    classifier = Classifier(settings.bundle, threads, settings.tta)
    inputs = _inputs(images)
    found = settle_scale(settings.um_per_pixel, inputs.items, settings.bundle)
    scale = found.um_per_pixel
    gallery = None if report is None else Gallery()
    with progress_bar("classifying") as progress:
        tally = classify_to(
            Path(settings.table),
            classifier,
            inputs.items,
            None if gallery is None else gallery.add,
            progress,
            scale,
            extra=settings.extra,
            resume=settings.resume,
            force=settings.force,
        )
        style = describe_images(classifier, inputs.items, scale, tally)
        difference = tally.describe_difference(scale, style)
        if report is not None and gallery is not None:
            page = classification_page(
                gallery, tally, classifier, inputs.passed_over, difference, found.note
            )
            write_atomic(report, page)
        whole = _whole(inputs.items)
        notes = (note_masks(whole), note_fields(whole, Locator.from_bundle) if whole else "")
    return _Made(tally, difference, inputs.passed_over, notes, found)


def _whole(items: Sequence[Item]) -> list[str]:
    """The files of which all is one cell, unlike rows of a manifest with a place of their own."""
    return [item for item in items if isinstance(item, str)]


def _print_notes(made: _Made) -> None:
    """What the user should know beside the counts."""
    for note in filter(None, made.notes):
        print_warning(note)
    if made.difference:
        print_warning(made.difference)


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


def _print_tally(tally: Tally) -> None:
    table = Table("class", "sure", "share of the sure", "to review")
    whole = max(sum(tally.sure.values()), 1)
    for name, count in tally.sure.items():
        to_review = "–" if tally.to_review is None else str(tally.to_review[name])
        table.add_row(escape(name), str(count), share(count / whole), to_review)
    out.print(table)
