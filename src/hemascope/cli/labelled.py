"""`hemascope evaluate`, `calibrate` and `adapt`: what a model learns of itself from labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from hemascope.bundle.bundle import CARD_FILE, read_bundle, write_bundle
from hemascope.cli.site import SiteOptions, print_site, selected, title_of
from hemascope.cli.terminal import (
    TTA,
    BundlePath,
    Force,
    bundle_folder,
    out,
    progress_bar,
    refuse_existing,
    share,
)
from hemascope.data.external import cells_of
from hemascope.inference.classifier import Classifier
from hemascope.records import RESEARCH_USE_ONLY, Estimate, Evaluation, Proportion


def evaluate(
    manifest: Path,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    split: str | None = None,
    root: Path | None = None,
    name: str | None = None,
    tta: TTA = False,
    elsewhere: Annotated[SiteOptions | None, Parameter(name="*")] = None,
    force: Force = False,
) -> int:
    """Measure a model on labelled images. Needs 'hemascope[evaluate]'.

    Writes evaluation.json, figures and report.html; every figure has its 95 % interval. For
    another laboratory's images, --site or --um-per-pixel brings them to the model's scale and
    adds what is fair to ask there: the figures among the classes that it has, and how its images
    differ.

    Parameters
    ----------
    manifest
        Manifest CSV, or a folder with one folder a class.
    out_folder
        Where the results go.
    bundle
        Folder of the model, or of a run; by default the model that comes with the package.
    split
        Measure on the rows of this split only, such as test.
    root
        What the manifest's paths are relative to; by default its own folder.
    name
        Title of the results; by default the manifest's name and the split.
    tta
        Look at each image in the eight symmetries of the square; takes eight times as long.
    elsewhere
        What is known of another laboratory's images.
    force
        Replace results that exist.
    """
    from hemascope.evaluation.evaluate import evaluate as measure
    from hemascope.reports.write import write_evaluation

    refuse_existing(force, out_folder / "evaluation.json")
    classifier = Classifier(bundle_folder(bundle), tta=tta)
    options = elsewhere or SiteOptions()
    cells = options.cells(manifest, root, split, classifier.card)
    title = name or options.site or title_of(manifest, split)
    with progress_bar("evaluating") as progress:
        found = measure(classifier, cells, title, progress, options.known)
    with progress_bar("measuring images") as progress:
        found = options.with_appearance(found, cells, classifier.card, progress)
    write_evaluation(found, classifier, cells, out_folder)
    _print_evaluation(found)
    if found.site is not None:
        print_site(found.site)
    out.print(f"written to {escape(str(out_folder))}. {RESEARCH_USE_ONLY}", soft_wrap=True)
    return 0


def calibrate(
    manifest: Path,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    elsewhere: Path | None = None,
    split: str | None = None,
    root: Path | None = None,
    name: str | None = None,
    int8: Annotated[bool, Parameter(negative="")] = False,
    force: Force = False,
) -> int:
    """Teach a model how far to trust its answers. Needs 'hemascope[evaluate]'.

    Writes a bundle with the same network, whose probabilities are calibrated and whose
    predictions carry a set of possible classes, an out-of-distribution score, and whether
    somebody should look at the image. All of it is fitted on labelled images that training
    never saw, at least 20 of each class.

    Parameters
    ----------
    manifest
        Manifest CSV, or a folder with one folder a class.
    out_folder
        Folder of the calibrated bundle.
    bundle
        Folder of the model, or of a run; by default the model that comes with the package.
    elsewhere
        Another bundle, or run, for the same classes and input, whose network is to name the
        cells that are unlike those of the manifest; by default the one that the bundle has.
    split
        Use the rows of this split only, such as pool or val.
    root
        What the manifest's paths are relative to; by default its own folder.
    name
        What the images are, in words, for the card; by default the manifest's name and the split.
    int8
        Let the network compute in eight-bit integers, which is up to twice as fast; needs
        'hemascope[train]'. Refused where it would name more than 1 % of cells otherwise.
    force
        Replace a bundle that exists.
    """
    from hemascope.post_training.calibrate import calibrate as fit

    refuse_existing(force, out_folder / CARD_FILE)
    found = read_bundle(bundle_folder(bundle))
    images = selected(manifest, root, split, found.card)
    title = name or title_of(manifest, split)
    with progress_bar("calibrating") as progress:
        other = None if elsewhere is None else read_bundle(bundle_folder(elsewhere))
        calibrated = fit(found, images, title, progress, other, int8)
    write_bundle(calibrated, out_folder)
    trust = calibrated.card.trust
    assert trust is not None
    out.print(
        f"temperature {calibrated.card.temperature:.3f}, from {trust.images} images of "
        f"{len(images.rows)}; bundle written to {escape(str(out_folder))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 0


def adapt(
    manifest: Path,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    bundle: BundlePath = None,
    split: str | None = None,
    root: Path | None = None,
    name: str | None = None,
    um_per_pixel: float | None = None,
    force: Force = False,
) -> int:
    """Fit a model to another laboratory, by ten labelled cells a class. Needs 'hemascope[train]'.

    Writes a bundle whose last layers are fitted to these cells: those of the networks for unlike
    cells, where the model has one. It is for that laboratory's pictures only, and flags nothing
    until `calibrate` has seen other cells of them.

    Parameters
    ----------
    manifest
        Manifest CSV, or a folder with one folder a class; at least five cells of each class.
    out_folder
        Folder of the adapted bundle.
    bundle
        Folder of the model, or of a run; by default the model that comes with the package.
    split
        Use the rows of this split only.
    root
        What the manifest's paths are relative to; by default its own folder.
    name
        What the laboratory is called on the card; by default the manifest's name and the split.
    um_per_pixel
        How many micrometres a pixel of these images is wide; by default they look like the
        training images. Classify with the same.
    force
        Replace a bundle that exists.
    """
    from hemascope.post_training.adapt import adapt as fit

    refuse_existing(force, out_folder / CARD_FILE)
    found = read_bundle(bundle_folder(bundle))
    cells = cells_of(selected(manifest, root, split, found.card), um_per_pixel)
    with progress_bar("adapting") as progress:
        adapted = fit(found, cells, name or title_of(manifest, split), progress)
    write_bundle(adapted, out_folder)
    held_out = adapted.card.figures[0].result
    out.print(
        f"{share(held_out.value)} ({share(held_out.low)} – {share(held_out.high)}) of "
        f"{held_out.n} cells right when held out; bundle written to {escape(str(out_folder))}. "
        f"{RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 0


def _print_evaluation(found: Evaluation) -> None:
    table = Table("figure", "value", "95 % interval", title=f"{escape(found.name)}, n = {found.n}")
    figures: dict[str, Proportion | Estimate] = {
        "accuracy": found.accuracy,
        "balanced accuracy": found.balanced_accuracy,
        "macro F1": found.macro_f1,
        "macro AUROC": found.macro_auroc,
        "expected calibration error": found.expected_calibration_error,
    }
    for name, figure in figures.items():
        interval = f"{share(figure.low)} – {share(figure.high)}"
        table.add_row(name, share(figure.value), interval)
    out.print(table)
    classes = Table("class", "n", "precision", "recall", "F1")
    for scores in found.per_class:
        values = (scores.precision.value, scores.recall.value, scores.f1.value)
        classes.add_row(escape(scores.label), str(scores.recall.n), *map(share, values))
    out.print(classes)
    if found.unreadable:
        out.print(f"{len(found.unreadable)} images could not be read and are left out")
