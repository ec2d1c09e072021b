"""train(recipe, manifest, folder): a whole run, from the images to the bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save

from hemascope.arrays import ProgressCallback
from hemascope.bundle.bundle import Bundle, write_bundle
from hemascope.bundle.card import Card, Metric
from hemascope.bundle.export import draw_sample, export
from hemascope.classes import ClassSet
from hemascope.data.cache import default_cache
from hemascope.data.manifest import Manifest
from hemascope.errors import TrainingError
from hemascope.files import is_torn, remove_torn_below, write_atomic
from hemascope.metrics.intervals import wilson
from hemascope.models.ensemble import Ensemble
from hemascope.models.imagenet import BLOCKS, imagenet_state
from hemascope.models.network import CellNetwork
from hemascope.provenance import provenance
from hemascope.records import Evaluation
from hemascope.serialization import from_json, to_json
from hemascope.training.curves import draw_curves
from hemascope.training.folder import EpochRecord, RunFacts, RunFolder, best_record
from hemascope.training.images import NO_CLASS, prepare_data
from hemascope.training.loop import OnEpoch, fit, network_of
from hemascope.training.machine import limit_threads, settle_precision, warn_of_slow_precision
from hemascope.training.recipe import Recipe, StartFrom, read_recipe


def train(
    recipe: Recipe,
    manifest: Manifest,
    path: str | Path,
    *,
    resume: bool = False,
    start_from: StartFrom | None = None,
    classes: ClassSet | None = None,
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
    classes
        The class set; by default that of the labels. Images whose label is none of the classes are
        outliers, of which the network learns to be unsure.
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
    start = None if start_from is None else _start(start_from, recipe)
    data = prepare_data(recipe, manifest, Path(cache or default_cache()), classes, on_read)
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
    fit(recipe, data, folder, on_epoch, on_step, folder.start if folder.start.exists() else None)
    if is_main:
        write_atomic(folder.curves, draw_curves(folder.read_metrics(), path.name))
        write_bundle(export_run(folder), folder.bundle)
        if on_done is not None:
            on_done(folder)
    return folder


def end_group_process() -> None:
    """Ends this process, with exit code 0, if it is one of several that train together.

    To be called when its last work is done. Where DistributedDataParallel was used, Gloo's threads
    outlive their process group (torch 2.13), and a process that cleans up beside them may abort.
    """
    if PartialState().num_processes > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def export_run(
    folder: RunFolder,
    name: str | None = None,
    trained_on: str | None = None,
    image_microns: float | None = None,
    half: bool = False,
) -> Bundle:
    """The best weights of a run as a bundle. Raises ValueError where the run is incomplete.

    `image_microns` is how many micrometres the training images' shorter side shows; `half` keeps
    the weights in half precision.
    """
    network, card = load_trained(folder, name, trained_on, image_microns)
    return export(network, card, draw_sample(card.input), half)


def export_ensemble(
    folders: Sequence[RunFolder],
    name: str | None = None,
    trained_on: str | None = None,
    image_microns: float | None = None,
    half: bool = False,
) -> Bundle:
    """The best weights of several runs as one bundle, which predicts with their mean.

    Raises ValueError where a run is incomplete, or for other classes or images than the first's.
    """
    return _ensemble(
        [load_trained(folder, name, trained_on, image_microns) for folder in folders], half
    )


def export_snapshots(
    folder: RunFolder,
    name: str | None = None,
    trained_on: str | None = None,
    image_microns: float | None = None,
    half: bool = False,
) -> Bundle:
    """The snapshots of one run as one bundle, which predicts with their mean.

    Huang et al., "Snapshot ensembles: train 1, get M for free", ICLR 2017. Raises ValueError for a
    run of one cycle, or where the run is incomplete.
    """
    _, card = load_trained(folder, name, trained_on, image_microns)
    recipe = read_recipe(folder.recipe)
    paths = [folder.snapshot(cycle + 1) for cycle in range(recipe.cycles)]
    if recipe.cycles == 1 or not all(path.exists() for path in paths):
        raise ValueError(f"{folder.path}: has no snapshots; train with --cycles, to the end")
    members = []
    for path in paths:
        network = network_of(recipe, len(card.classes))
        network.load_state_dict(load_file(path))
        members.append((network, card))
    return _ensemble(members, half)


def _ensemble(members: Sequence[tuple[CellNetwork, Card]], half: bool) -> Bundle:
    first = members[0][1]
    for _, card in members:
        if (card.classes, card.input) != (first.classes, first.input):
            raise ValueError(
                f"{card.name}: its classes or its input differ from those of {first.name}; "
                "an ensemble's members must share both"
            )
    shared = {
        name: value
        for name, value in first.recipe.items()
        if all(card.recipe[name] == value for _, card in members)
    }
    card = replace(
        first,
        recipe=shared,
        architecture=" + ".join(card.architecture for _, card in members),
        parameters=sum(card.parameters for _, card in members),
        metrics=(),
    )
    ensemble = Ensemble([network for network, _ in members])
    return export(ensemble, card, draw_sample(card.input), half)


def load_trained(
    folder: RunFolder,
    name: str | None = None,
    trained_on: str | None = None,
    image_microns: float | None = None,
) -> tuple[CellNetwork, Card]:
    """A run's network with its best weights, and its card, which has no model's hash yet.

    Raises ValueError where the run is incomplete.
    """
    recipe = read_recipe(folder.recipe)
    if not folder.best.exists() or not folder.provenance.exists():
        raise ValueError(f"{folder.path}: not a run with a finished epoch")
    facts = from_json(folder.provenance.read_bytes(), RunFacts)
    network = network_of(recipe, len(facts.classes))
    network.load_state_dict(load_file(folder.best))
    spec = recipe.spec
    if image_microns is not None:
        if recipe.microns is not None:
            raise ValueError(
                f"{folder.path}: its recipe says that the model sees {recipe.microns:g} µm; "
                "leave --image-microns out"
            )
        spec = replace(spec, microns=round(recipe.crop * image_microns, 2))
    outliers = f", {facts.outliers} of them of no class" if facts.outliers else ""
    return network, Card(
        name=name or folder.path.name,
        classes=facts.classes,
        input=spec,
        architecture=recipe.model,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        model_sha256="",
        training_data=trained_on
        or f"{facts.train_images} images{outliers}, data hash {facts.data[:12]}",
        recipe=from_json(to_json(recipe), dict),
        metrics=_validation(folder.read_metrics(), facts),
        provenance=facts.provenance,
    )


def add_evaluation(bundle: Bundle, evaluation: Evaluation) -> Bundle:
    """The bundle with an evaluation's figures on its card. Raises ValueError for another model."""
    if evaluation.provenance.get("model_sha256") != bundle.card.model_sha256:
        raise ValueError(f"the evaluation '{evaluation.name}' is of another model")
    metric = Metric(evaluation.name, "accuracy", evaluation.accuracy)
    card = replace(bundle.card, metrics=(*bundle.card.metrics, metric))
    return replace(bundle, card=card)


def _validation(records: list[EpochRecord], facts: RunFacts) -> tuple[Metric, ...]:
    """The best epoch's accuracy on the images held out of training."""
    accuracy = best_record(records).val_accuracy
    if accuracy is None:
        return ()
    correct = round(accuracy * facts.val_images)
    measured_on = "images held out of training, by which the epoch was chosen"
    return (Metric(measured_on, "accuracy", wilson(correct, facts.val_images)),)


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


def _start(source: StartFrom, recipe: Recipe) -> bytes:
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
