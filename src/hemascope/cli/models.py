"""`hemascope train`, `export`, `info` and `benchmark`: how a model comes to be, and what it is."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from hemascope.batch.inputs import find_images
from hemascope.bundle.bundle import CARD_FILE, read_bundle, write_bundle
from hemascope.cli.terminal import (
    BundlePath,
    Force,
    bundle_folder,
    out,
    progress_bar,
    refuse_existing,
    share,
)
from hemascope.data.open_manifest import open_manifest
from hemascope.files import write_whole
from hemascope.inference.classifier import Classifier
from hemascope.records import Evaluation
from hemascope.reports.pages import model_card
from hemascope.serialization import from_json, to_json
from hemascope.training.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from hemascope.training.folder import EpochRecord


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
    from hemascope.training.run import leave_process_group
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
    leave_process_group()
    return 0


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
    found = read_bundle(bundle_folder(bundle))
    card = found.card
    if out_file is not None:
        write_whole(out_file, model_card(found))
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
    from hemascope.evaluation.speed import benchmark as measure

    refuse_existing(force, out_file)
    if turns < 1:
        raise ValueError(f"--turns must be at least 1, not {turns}")
    classifier = Classifier(bundle_folder(bundle))
    with progress_bar("measuring") as progress:
        found = measure(classifier, find_images(images), turns, progress)
    write_whole(out_file, to_json(found))
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
