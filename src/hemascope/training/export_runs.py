"""Finished runs as bundles: one run, the mean of several, or the snapshots of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from safetensors.torch import load_file

from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Card, Metric
from hemascope.bundle.export import draw_sample, export
from hemascope.metrics.intervals import wilson
from hemascope.models.ensemble import Ensemble
from hemascope.models.network import CellNetwork
from hemascope.records import Evaluation
from hemascope.serialization import from_json, to_json
from hemascope.training.folder import EpochRecord, RunFacts, RunFolder, best_record
from hemascope.training.loop import network_of
from hemascope.training.recipe import read_recipe


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
