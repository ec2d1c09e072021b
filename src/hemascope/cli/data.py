"""`hemascope data`: check, audit, split and draw sets of images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table

from hemascope.classes import BLOOD_CELLS
from hemascope.cli.audit import data_audit
from hemascope.cli.options import (
    Force,
    MaxPixels,
    Root,
    limit_pixels,
    open_images,
)
from hemascope.cli.terminal import escape, out, print_warning, progress_bar, refuse_existing
from hemascope.data.check import DataReport, check
from hemascope.data.manifest import Manifest, write_manifest
from hemascope.data.open_manifest import below
from hemascope.data.splits import (
    add_hashes,
    check_splits,
    leave_one_laboratory_out,
    split_counts,
    split_fractions,
)
from hemascope.data.synthetic import draw_folder
from hemascope.data.synthetic_fields import draw_fields
from hemascope.uncertainty.model import LEAST_PER_CLASS

app = App(name="data", help="Check, audit, split and draw sets of images.")
app.command(data_audit, name="audit")


@app.command(name="check")
def data_check(
    images: Path,
    *,
    out_file: Annotated[Path | None, Parameter(name="--out")] = None,
    root: Root = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Find what is wrong with a set of images, and write its manifest.

    Counts classes, subtypes, sizes and modes; finds unreadable files, copies, the same image
    under two labels, near-duplicates, images in two splits, and masks among the cells.

    Parameters
    ----------
    images
        Folder with one folder per class, manifest CSV, or a BloodMNIST .npz file.
    out_file
        Write the manifest of the images that can be read, with their SHA-256 (.csv).
    """
    limit_pixels(max_pixels)
    refuse_existing(force, out_file)
    with progress_bar("reading") as progress:
        report = check(open_images(images, root), progress)
    _print_check(report)
    if out_file is not None:
        write_manifest(below(report.manifest, out_file.parent), out_file, overwrite=force)
        n = len(report.manifest.rows)
        out.print(f"manifest of {n} images written to {escape(str(out_file))}", soft_wrap=True)
    check_splits(report.manifest)
    return 0


@dataclass(frozen=True)
class SplitOptions:
    """How images are divided."""

    test: float = 0.2
    """Part for testing."""
    val: float = 0.0
    """Part for validation."""
    pool: float = 0.0
    """Part for calibration, which needs 20 images a class that training never sees; the rest is
    for training."""
    paper: Annotated[bool, Parameter(negative="")] = False
    """The study's protocol instead: a fixed number of images per class to train on and to test
    on; the rest is `pool`."""
    train_per_class: int = 400
    """Images per class to train on, with --paper."""
    test_per_class: int = 125
    """Images per class to test on, with --paper."""
    leave_out: str | None = None
    """A laboratory of the manifest. All of its images become `external`; the other images keep
    their split, and are in train if they have none."""
    seed: int = 0
    """Another seed gives another split."""

    def divide(self, manifest: Manifest) -> Manifest:
        """The manifest with its splits, of which none shares an image with another."""
        if self.leave_out is not None:
            if self.paper:
                raise ValueError(
                    "--paper splits every laboratory; leave --leave-out or --paper out"
                )
            done = leave_one_laboratory_out(manifest, self.leave_out)
        elif self.paper:
            done = split_counts(manifest, self.seed, self.train_per_class, self.test_per_class)
        else:
            parts = {"train": 1 - self.val - self.test - self.pool}
            parts |= {"val": self.val, "test": self.test, "pool": self.pool}
            done = split_fractions(manifest, {k: v for k, v in parts.items() if v}, self.seed)
        check_splits(done)
        return done


@app.command(name="split")
def data_split(
    images: Path,
    *,
    out_file: Annotated[Path, Parameter(name="--out")],
    options: Annotated[SplitOptions | None, Parameter(name="*")] = None,
    root: Root = None,
    force: Force = False,
) -> int:
    """Divide images into train, val, test and pool, by class and subtype.

    Copies of a file, and the cells of one group (patient or slide), are kept together.

    Parameters
    ----------
    images
        Folder with one folder per class, or manifest CSV (its own splits are replaced).
    out_file
        The manifest with its splits (.csv).
    """
    refuse_existing(force, out_file)
    done = (options or SplitOptions()).divide(add_hashes(open_images(images, root)))
    write_manifest(below(done, out_file.parent), out_file, overwrite=force)
    _warn_of_few(done)
    counts = Counter(row.split for row in done.rows)
    listed = ", ".join(f"{n} {split}" for split, n in sorted(counts.items()))
    out.print(f"{listed}; written to {escape(str(out_file))}", soft_wrap=True)
    return 0


def _warn_of_few(manifest: Manifest) -> None:
    """Warns of classes with fewer images in the pool than calibration needs."""
    pool = Counter(row.label for row in manifest.rows if row.split == "pool")
    few = [
        f"{pool[label]} of {label}"
        for label in manifest.class_names()
        if pool[label] < LEAST_PER_CLASS
    ]
    if pool and few:
        print_warning(
            f"only {', '.join(few)} in the pool: to calibrate, {LEAST_PER_CLASS} of each class are "
            "needed there; label more of them or take a larger --pool"
        )


@app.command(name="draw")
def data_draw(
    folder: Path,
    *,
    per_class: int = 5,
    fields: int | None = None,
    seed: int = 0,
    size: int = 360,
    force: Force = False,
) -> int:
    """Draw cells of the eight classes, or fields of a smear, for demos and tests.

    They are never for accuracy claims.

    Parameters
    ----------
    folder
        Where the images go, one folder per class; with --fields all in this folder.
    per_class
        Cells per class.
    fields
        Draw so many fields of one smear instead, with eight white cells each.
    seed
        Another seed draws other cells.
    size
        Side of the images in pixels.
    """
    if fields is not None:
        draw_fields(folder, fields, seed, overwrite=force)
        out.print(f"{fields} fields drawn in {escape(str(folder))}", soft_wrap=True)
        return 0
    draw_folder(folder, per_class, seed, size=size, overwrite=force)
    n = per_class * len(BLOOD_CELLS)
    out.print(f"{n} cells drawn in {escape(str(folder))}", soft_wrap=True)
    return 0


def _print_check(report: DataReport) -> None:
    table = Table("class", "images", "subtypes")
    for label, count in report.per_class.items():
        subtypes = {sub: n for (name, sub), n in report.per_subtype.items() if name == label}
        listed = ", ".join(f"{subtype} {n}" for subtype, n in subtypes.items())
        table.add_row(escape(label), str(count), escape(listed))
    out.print(table)
    facts = {
        "sizes": ", ".join(f"{size} ({n})" for size, n in list(report.sizes.items())[:6]),
        "modes": ", ".join(f"{mode} ({n})" for mode, n in report.modes.items()),
        "laboratories": ", ".join(f"{name} ({n})" for name, n in report.per_laboratory.items())
        or "not given",
        "groups (patients or slides)": str(report.groups),
        "hidden files passed over": str(report.hidden),
        "unreadable files": str(len(report.unreadable)),
        "images that look like masks, not cells": str(len(report.masks)),
        "groups of identical files": str(len(report.identical)),
        "of them under two labels": str(len(report.two_labels)),
        "of them in two splits": str(len(report.two_splits)),
        "changed since the manifest was written": str(len(report.changed)),
        "near-duplicates": str(len(report.near_duplicates)),
    }
    for name, value in facts.items():
        out.print(f"{name}: {value}", highlight=False)
    _print_findings(report)


def _print_findings(report: DataReport) -> None:
    """The files that something is to be done about."""
    for path, problem in report.unreadable:
        out.print(f"  unreadable: {escape(path)}: {escape(problem)}", soft_wrap=True)
    if report.masks:
        out.print(
            f"  masks: {escape(', '.join(report.masks))}; they count as cells here and in "
            "training: move them out of the classes' folders, or take them out of the manifest",
            soft_wrap=True,
        )
    groups = {
        "changed": tuple((path,) for path in report.changed),
        "two labels": report.two_labels,
        "two splits": report.two_splits,
        "identical": report.identical,
        "near-duplicates": report.near_duplicates,
    }
    for name, findings in groups.items():
        for paths in findings:
            out.print(f"  {name}: {escape(' = '.join(paths))}", soft_wrap=True)
