"""`hemascope data`: check, audit, split and draw sets of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.table import Table

from hemascope.classes import BLOOD_CELLS
from hemascope.cli.options import (
    Cache,
    Force,
    MaxPixels,
    Name,
    RecipeFile,
    RecipeSettings,
    Root,
    Split,
    choose_recipe,
    limit_pixels,
    open_images,
    title_of,
)
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing
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
from hemascope.inference.classifier import Classifier
from hemascope.records import RESEARCH_USE_ONLY, Audit
from hemascope.training.recipe import StartFrom

app = App(name="data", help="Check, audit, split and draw sets of images.")


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


@app.command(name="split")
def data_split(
    images: Path,
    *,
    out_file: Annotated[Path, Parameter(name="--out")],
    test: float = 0.2,
    val: float = 0.0,
    pool: float = 0.0,
    paper: Annotated[bool, Parameter(negative="")] = False,
    train_per_class: int = 400,
    test_per_class: int = 125,
    leave_out: str | None = None,
    seed: int = 0,
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
    test
        Part for testing.
    val
        Part for validation.
    pool
        Part for calibration, which needs 20 images a class that training never sees; the rest is
        for training.
    paper
        The study's protocol instead: a fixed number of images per class to train on and to test
        on; the rest is `pool`.
    train_per_class
        Images per class to train on, with --paper.
    test_per_class
        Images per class to test on, with --paper.
    leave_out
        A laboratory of the manifest. All of its images become `external`; the other images keep
        their split, and are in train if they have none.
    seed
        Another seed gives another split.
    """
    refuse_existing(force, out_file)
    manifest = add_hashes(open_images(images, root))
    if leave_out is not None:
        if paper:
            raise ValueError("--paper splits every laboratory; leave --leave-out or --paper out")
        done = leave_one_laboratory_out(manifest, leave_out)
    elif paper:
        done = split_counts(manifest, seed, train_per_class, test_per_class)
    else:
        parts = {"train": 1 - val - test - pool, "val": val, "test": test, "pool": pool}
        done = split_fractions(manifest, {k: v for k, v in parts.items() if v}, seed)
    check_splits(done)
    write_manifest(below(done, out_file.parent), out_file, overwrite=force)
    counts = Counter(row.split for row in done.rows)
    listed = ", ".join(f"{n} {split}" for split, n in sorted(counts.items()))
    out.print(f"{listed}; written to {escape(str(out_file))}", soft_wrap=True)
    return 0


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


@app.command(name="audit")
def data_audit(
    images: Path,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: Path | None = None,
    folds: int = 3,
    recipe_file: RecipeFile = None,
    recipe: RecipeSettings = None,
    start_from: StartFrom | None = None,
    split: Split = None,
    root: Root = None,
    name: Name = None,
    cache: Cache = None,
    max_pixels: MaxPixels = None,
    force: Force = False,
) -> int:
    """Find images whose label is probably wrong. Needs 'hemascope[audit]'.

    Every image is predicted by a network that never saw it: networks are trained on the other
    images in turn, or --bundle gives one that was trained on none of them. Writes a ranked list
    (audit.csv), a page (audit.html) and audit.json. If it is stopped, the same command continues.

    Parameters
    ----------
    images
        Folder with one folder per class, or manifest CSV.
    out_folder
        Where the list, the page and the runs go.
    bundle
        Folder of a model that has seen none of these images, instead of training any.
    folds
        Networks to train, each on all but one part of the images.
    recipe
        Single settings; the defaults are the study's.
    start_from
        A run that has seen none of these images, whose weights each network begins with; or
        `imagenet`.
    """
    limit_pixels(max_pixels)
    from hemascope.evaluation.audit import audit, train_folds
    from hemascope.reports.write import write_audit

    refuse_existing(force, out_folder / "audit.csv")
    if bundle is not None and (recipe or recipe_file or start_from) is not None:
        raise ValueError("--bundle trains nothing; leave the settings of training out")
    manifest = open_images(images, root)
    manifest = manifest if split is None else manifest.select(split)
    if bundle is not None:
        _check_unseen(manifest)
        audited = [(Classifier(bundle), manifest)]
    else:
        if folds < 2:
            raise ValueError(f"--folds must be at least 2, not {folds}")
        with progress_bar("reading") as on_read, progress_bar("training") as on_step:
            audited = train_folds(
                choose_recipe(recipe_file, recipe),
                manifest,
                out_folder,
                folds,
                start_from=start_from,
                cache=cache,
                on_read=on_read,
                on_step=on_step,
            )
    with progress_bar("auditing") as progress:
        findings = audit(audited, name or title_of(images, split), progress)
    write_audit(findings, audited, out_folder)
    _print_audit(findings, out_folder)
    return 0


def _check_unseen(manifest: Manifest) -> None:
    """Raises ValueError for an image that a bundle may have been trained on."""
    trained_on = next((row.path for row in manifest.rows if row.split == "train"), None)
    if trained_on is not None:
        raise ValueError(
            f"{trained_on} is of split train; leave --bundle out, or choose by --split"
        )


def _print_audit(findings: Audit, folder: Path) -> None:
    for pair, count in findings.pairs.items():
        out.print(f"{escape(pair)}: {count}", highlight=False)
    out.print(
        f"{len(findings.issues)} of {findings.n} labels to look at; written to "
        f"{escape(str(folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )


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
