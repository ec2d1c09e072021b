"""train(recipe, manifest, folder): a whole run, from the images to the bundle."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save

from hemascope.arrays import ProgressCallback
from hemascope.bundle.bundle import write_bundle
from hemascope.classes import ClassSet
from hemascope.data.attributes import AttributeTable
from hemascope.data.cache import default_cache
from hemascope.data.manifest import Manifest
from hemascope.errors import HemascopeWarning, TrainingError
from hemascope.files import is_torn, remove_torn_below, write_atomic
from hemascope.models.imagenet import BLOCKS, imagenet_state
from hemascope.models.network import CellNetwork
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.training.curves import draw_curves
from hemascope.training.export_runs import export_run, load_trained
from hemascope.training.folder import RunFacts, RunFolder
from hemascope.training.images import NO_CLASS, TrainingData, prepare_data
from hemascope.training.loop import OnEpoch, fit
from hemascope.training.machine import limit_threads, settle_precision, warn_of_slow_precision
from hemascope.training.recipe import Recipe, StartFrom, read_recipe

FEW_STEPS = 20  # of the optimiser; fewer are warned of


def train(
    recipe: Recipe,
    manifest: Manifest,
    path: str | Path,
    *,
    resume: bool = False,
    start_from: StartFrom | None = None,
    teachers: Sequence[str | Path] = (),
    classes: ClassSet | None = None,
    attributes: AttributeTable | None = None,
    cache: str | Path | None = None,
    on_read: ProgressCallback | None = None,
    on_step: ProgressCallback | None = None,
    on_epoch: OnEpoch | None = None,
    on_done: Callable[[RunFolder], None] | None = None,
) -> RunFolder:
    """Trains a recipe on a manifest's training images and leaves everything in a folder.

    Rows of split train are trained on and rows of split val validate; without splits, all rows are
    used. Of processes that train together, only the first writes and calls back. Needs
    'hemascope[train]'.

    Parameters
    ----------
    recipe, manifest
        What to train, and on which images. The precision `auto` becomes what this machine is fast
        in, and stays that when the run is resumed; the folder's recipe and the card record it.
    path
        The run's folder: recipe, curves, checkpoints and the bundle.
    resume
        Continue the run that the folder holds, from its last full epoch.
    start_from
        Folder of another run, of the same architecture, whose best weights this one begins with;
        or "imagenet".
    teachers
        Folders of other runs, of the same classes and scale of input, whose mean prediction of each
        augmented image is the share `teacher_weight` of its target.
    classes
        The class set; by default that of the labels. Images whose label is none of the classes are
        outliers, of which the network learns to be unsure.
    attributes
        What is seen of each cell (`data.attributes.read_attributes`). With an `auxiliary_weight`,
        they and the manifest's subtypes are learnt besides the class, in a layer that is kept
        in the folder as auxiliary.safetensors.
    cache
        Folder for decoded images; by default the user's cache folder, or HEMASCOPE_CACHE.
    on_read, on_step
        Called with how many images are read, or steps done, and how many there are.
    on_epoch, on_done
        Called with the record of each epoch, and with the run when it is done.

    Returns
    -------
    RunFolder
        The run; its `bundle` is the folder that `Classifier` takes.

    Raises
    ------
    TrainingError
        Before anything is written, for a folder that holds another run.
    ManifestError
        Before anything is written, for images that cannot be trained on.

    Warns
    -----
    HemascopeWarning
        For a run of fewer than 20 steps, and for a precision that this machine has to imitate.

    Examples
    --------
    In a folder where `hemascope data draw` has drawn the folder `cells`:

    >>> from hemascope import Classifier, Recipe, open_manifest, train
    >>> recipe = Recipe(model="simple_cnn", image_size=64, epochs=1, precision="fp32")
    >>> run = train(recipe, open_manifest("cells"), "run", cache="cache")
    >>> Classifier(run.bundle).classes_[:3].tolist()
    ['basophil', 'eosinophil', 'erythroblast']
    """
    path = Path(path)
    folder = RunFolder(path)
    recipe = _settle_recipe(recipe, folder)
    is_main = int(os.environ.get("RANK", "0")) == 0  # among processes that train together
    if is_main:
        _check_folder(folder, recipe, resume)
        remove_torn_below(folder.path)
        warn_of_slow_precision(recipe)
    limit_threads()
    start = None if start_from is None else read_start(start_from, recipe)
    folder_of_frames = Path(cache or default_cache())
    data = prepare_data(recipe, manifest, folder_of_frames, classes, on_read, attributes)
    _check_auxiliary(recipe, data, attributes)
    if is_main:
        warn_of_few_steps(recipe, len(data.targets))
    networks = _load_teachers([RunFolder(Path(run)) for run in teachers], recipe, data.classes)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    facts = RunFacts(
        classes=data.classes,
        train_images=len(data.targets),
        val_images=len(data.val_targets),
        data=data.digest,
        provenance=provenance(data.digest, device)
        | {"precision": recipe.precision, "threads": str(torch.get_num_threads())},
        outliers=data.targets.count(NO_CLASS),
    )
    if is_main:
        if start is not None:
            write_atomic(folder.start, start)
        write_atomic(folder.recipe, to_json(recipe))
        write_atomic(folder.provenance, to_json(facts))
    begun_with = folder.start if folder.start.exists() else None
    fit(recipe, data, folder, on_epoch, on_step, begun_with, networks)
    if is_main:
        write_atomic(folder.curves, draw_curves(folder.read_metrics(), path.name))
        write_bundle(export_run(folder), folder.bundle)
        if on_done is not None:
            on_done(folder)
    return folder


def _load_teachers(
    folders: Sequence[RunFolder], recipe: Recipe, classes: ClassSet
) -> list[CellNetwork]:
    """The teachers' networks. Raises TrainingError for teachers that the recipe cannot use."""
    if bool(folders) != (recipe.teacher_weight > 0):
        raise TrainingError(
            "teachers and teacher_weight go together: give the runs that teach, and the share of "
            "the target that comes from them (above 0)"
        )
    networks = []
    for folder in folders:
        try:
            network, card = load_trained(folder)
        except ValueError as error:
            raise TrainingError(str(error)) from None
        seen = (card.input.crop, card.input.microns)
        if card.classes != classes or seen != (recipe.crop, recipe.microns):
            raise TrainingError(
                f"{folder.path}: a teacher must have the same classes, crop and microns as the run"
            )
        networks.append(network)
    return networks


def _check_auxiliary(recipe: Recipe, data: TrainingData, attributes: AttributeTable | None) -> None:
    """Raises TrainingError for a weight and nothing to weigh, or the other way round."""
    if recipe.auxiliary_weight == 0 and attributes is not None:
        raise TrainingError(
            "attributes are learnt only with an auxiliary_weight above 0 (--auxiliary-weight); "
            "set one, or leave the attributes out"
        )
    if recipe.auxiliary_weight > 0 and data.auxiliary is None:
        raise TrainingError(
            "the recipe has an auxiliary_weight, but the manifest has no class of two or more "
            "subtypes and no attributes are given (--attributes); give some, or set it to 0"
        )


def warn_of_few_steps(recipe: Recipe, images: int) -> None:
    """Warns of a run that ends before the network can have learnt anything."""
    batch = min(recipe.batch_size, images)
    steps = (recipe.images_per_epoch or images) // batch * recipe.epochs
    if steps < FEW_STEPS:
        warnings.warn(
            f"{images} training images in batches of {batch} give {steps} steps in {recipe.epochs} "
            "epochs, in which a network learns next to nothing: take more --epochs or a smaller "
            "--batch-size",
            HemascopeWarning,
            stacklevel=3,
        )


def end_group_process() -> None:
    """Ends this process, with exit code 0, if it is one of several that train together.

    To be called when its last work is done. Where DistributedDataParallel was used, Gloo's threads
    outlive their process group (torch 2.13), and a process that cleans up beside them may abort.
    """
    if PartialState().num_processes > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _settle_recipe(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The recipe with a precision: that which a begun run has, or what is fast here."""
    if recipe.precision == "auto" and folder.recipe.exists():
        recipe = replace(recipe, precision=read_recipe(folder.recipe).precision)
    return settle_precision(recipe)


def _check_folder(folder: RunFolder, recipe: Recipe, resume: bool) -> None:
    if not folder.recipe.exists():
        if folder.path.exists() and not all(
            entry == folder.start or is_torn(entry) for entry in folder.path.iterdir()
        ):
            raise TrainingError(f"{folder.path}: not empty and not a run; take another folder")
        return
    if not resume:
        raise TrainingError(f"{folder.path}: holds a run; use --resume to go on with it")
    if read_recipe(folder.recipe) != recipe:
        raise TrainingError(
            f"{folder.path}: its recipe.json is another recipe; take another folder, or go on "
            "with the recipe that it was started with"
        )


def read_start(source: StartFrom, recipe: Recipe) -> bytes:
    """The weights in a run's folder, or ImageNet's."""
    if source == "imagenet":
        if recipe.model not in BLOCKS:
            raise TrainingError(
                f"there are no ImageNet weights for {recipe.model} here, only for "
                f"{' and '.join(BLOCKS)}"
            )
        return save(imagenet_state(recipe.model))
    best = RunFolder(source).best
    if not best.exists():
        raise TrainingError(f"{source}: not a run with a finished epoch to start from")
    return best.read_bytes()
