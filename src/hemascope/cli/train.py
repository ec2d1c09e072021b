"""`hemascope train` and `export`: how a model comes to be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hemascope.bundle.bundle import Bundle, write_bundle
from hemascope.bundle.card import CARD_FILE
from hemascope.classes import ClassSet
from hemascope.cli.options import (
    Cache,
    Force,
    ManifestPath,
    MaxPixels,
    RecipeFile,
    RecipeSettings,
    ResumeRun,
    Root,
    StartWeights,
    choose_recipe,
    limit_pixels,
    open_images,
)
from hemascope.cli.terminal import escape, out, progress_bar, refuse_existing
from hemascope.data.attributes import read_attributes
from hemascope.data.manifest import Manifest
from hemascope.records import Evaluation
from hemascope.serialization import from_json
from hemascope.training.recipe import Recipe, StartFrom

if TYPE_CHECKING:
    from hemascope.training.folder import EpochRecord, RunFolder


@dataclass(frozen=True)
class WhatIsLearnt:
    """Of which classes a network learns, from whom, and what besides."""

    teachers: Annotated[list[Path] | None, Parameter(name="--teacher", negative="")] = None
    """Another run, of the same classes, crop and microns, from whose predictions the share
    --teacher-weight of each target comes; several give their mean. Name it again to resume."""
    classes: str = ""
    """Names of the classes in their order, with commas between; images of other labels are
    outliers, of which the network learns to be unsure. By default every label is a class."""
    attributes: Path | None = None
    """CSV file of what is seen of each cell, such as the shape of its nucleus: img_name (a file's
    name) and columns as WBCAtt's. Together with the manifest's subtypes it is learnt besides
    the class, on the same features, with the weight --auxiliary-weight; files that are not
    listed have no say in it. What a bundle predicts of classes has the same form as without."""


def train(
    manifest: ManifestPath,
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    recipe_file: RecipeFile = None,
    recipe: RecipeSettings = None,
    resume: ResumeRun = False,
    start_from: StartWeights = None,
    learnt: Annotated[WhatIsLearnt | None, Parameter(name="*")] = None,
    root: Root = None,
    cache: Cache = None,
    max_pixels: MaxPixels = None,
) -> int:
    """Train a network and make a bundle of it. Needs 'hemascope[train]'.

    Rows of split `train` are trained on and rows of split `val` validate; without splits, all
    rows are trained on. With --resume, a run that was stopped or killed continues from its last
    full epoch.

    Parameters
    ----------
    out_folder
        The run's folder: recipe, curves, checkpoints and the bundle.
    recipe
        Single settings; the defaults are the study's.
    """
    limit_pixels(max_pixels)
    from hemascope.training.run import end_group_process

    chosen = choose_recipe(recipe_file, recipe)
    images = open_images(manifest, root)
    _train(chosen, images, out_folder, learnt or WhatIsLearnt(), resume, start_from, cache)
    end_group_process()
    return 0


def _train(
    recipe: Recipe,
    images: Manifest,
    folder: Path,
    learnt: WhatIsLearnt,
    resume: bool,
    start_from: StartFrom | None,
    cache: Path | None,
) -> None:
    """Trains, and says how it goes on."""
    from hemascope.training.allocator import keep_memory
    from hemascope.training.run import train as run_training

    keep_memory()
    classes = _choose_classes(learnt.classes, images)
    table = None if learnt.attributes is None else read_attributes(learnt.attributes)
    with progress_bar("reading") as on_read, progress_bar("training") as on_step:
        run_training(
            recipe,
            images,
            folder,
            resume=resume,
            start_from=start_from,
            teachers=learnt.teachers or (),
            classes=classes,
            attributes=table,
            cache=cache,
            on_read=on_read,
            on_step=on_step,
            on_epoch=partial(_print_epoch, recipe.epochs),
            on_done=_print_done,
        )


def _print_epoch(epochs: int, record: EpochRecord) -> None:
    val = "" if record.val_accuracy is None else f", validation {record.val_accuracy:.4f}"
    out.print(
        f"epoch {record.epoch}/{epochs}: loss {record.train_loss:.4f}{val}, "
        f"{record.images_per_second:.0f} images/s"
    )


def _print_done(run: RunFolder) -> None:
    out.print(f"bundle written to {escape(str(run.bundle))}", soft_wrap=True)


def _choose_classes(names: str, images: Manifest) -> ClassSet | None:
    """The ClassSet of these names; None for all labels. Every class must have an image."""
    if not names:
        return None
    classes = ClassSet.from_names(name.strip() for name in names.split(","))
    known, outliers = images.separate_outliers(classes)
    present = {classes.index(row.label) for row in known.rows}
    for index, name in enumerate(classes.names):
        if index not in present:
            raise ValueError(
                f"--classes names '{name}', but no image has that label; the labels are "
                f"{', '.join(images.class_names())}"
            )
    if outliers.rows:
        counts = Counter(row.label for row in outliers.rows).most_common()
        listed = ", ".join(f"{label} {n}" for label, n in counts)
        out.print(f"outliers, of none of the classes: {escape(listed)}", soft_wrap=True)
    return classes


@dataclass(frozen=True)
class CardOptions:
    """What the card of an exported bundle says."""

    name: str | None = None
    """Name of the model; by default the run folder's."""
    evaluation: Path | None = None
    """An evaluation.json of this very model, whose figures go on the card."""
    trained_on: str | None = None
    """What the images were, in words, for the card."""
    image_microns: float | None = None
    """How many micrometres the shorter side of a training image shows; with it, the model takes
    images of any scale (--um-per-pixel)."""


def export(
    runs: Annotated[list[Path], Parameter(negative="")],
    *,
    out_folder: Annotated[Path, Parameter(name="--out")],
    card: Annotated[CardOptions | None, Parameter(name="*")] = None,
    snapshots: Annotated[bool, Parameter(negative="")] = False,
    half: Annotated[bool, Parameter(negative="")] = False,
    force: Force = False,
) -> int:
    """Make a bundle of a run's best weights, or an ensemble of several. Needs 'hemascope[train]'.

    Nothing is written where torch's and onnxruntime's outputs differ.

    Parameters
    ----------
    runs
        Folders that `train` made; several become one model that predicts with their mean.
    out_folder
        Folder of the bundle.
    snapshots
        Make an ensemble of one run's snapshots, of a recipe with several cycles.
    half
        Keep the weights in half precision: half the file, and outputs that differ by a rounding.
    """
    refuse_existing(force, out_folder / CARD_FILE)
    bundle = _export(runs, card or CardOptions(), snapshots, half)
    write_bundle(bundle, out_folder)
    out.print(
        f"bundle written to {escape(str(out_folder))}, {len(bundle.model) / 1e6:.1f} MB",
        soft_wrap=True,
    )
    return 0


def _export(runs: list[Path], card: CardOptions, snapshots: bool, half: bool) -> Bundle:
    """The bundle of a run, of its snapshots, or of several runs, with what its card says."""
    from hemascope.training.export_runs import (
        add_evaluation,
        export_ensemble,
        export_run,
        export_snapshots,
    )
    from hemascope.training.folder import RunFolder

    folders = [RunFolder(run) for run in runs]
    facts = (card.name, card.trained_on, card.image_microns, half)
    if snapshots:
        if len(folders) > 1:
            raise ValueError("--snapshots makes an ensemble of one run; give one run")
        bundle = export_snapshots(folders[0], *facts)
    elif len(folders) == 1:
        bundle = export_run(folders[0], *facts)
    else:
        bundle = export_ensemble(folders, *facts)
    if card.evaluation is not None:
        bundle = add_evaluation(bundle, from_json(card.evaluation.read_bytes(), Evaluation))
    return bundle
