"""What a laboratory that no network was trained on may expect, and the bundle made accordingly.

    python benchmarks/several_laboratories.py cells.npz runs --out docs/evaluation/left_out.json

`cells.npz` comes from pack_laboratories.py, and `runs` holds the runs of leave_one_out.py: two
seeds, such as bccd_1 and bccd_2, for each laboratory that they were trained without. What each
pair says of that laboratory's cells is written as a table beside the JSON. The figures of a
laboratory are of its own cells, named by the networks that never saw it, with temperature, prior
and limits fitted to the other laboratories.

With `--bundle FOLDER`, the run `home` becomes the bundle's network, and all_1 and all_2 its
fallback model. The network is calibrated on the fifth of PBC's `pool` that no run was trained on,
and the fallback model on what was said of all laboratories that were left out. Needs the extras
`train` and `evaluate`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hemascope.arrays import AnyFloatArray, ImageArray
from hemascope.bundle.bundle import Bundle, add_fallback, write_bundle
from hemascope.bundle.card import Card, Metric
from hemascope.bundle.engine import Engine
from hemascope.bundle.export import draw_sample, export
from hemascope.bundle.heads import Head, Heads, read_heads, replace_heads
from hemascope.bundle.tta import symmetries
from hemascope.classes import BLOOD_CELLS
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.files import write_atomic
from hemascope.metrics.class_subset import measure_choice
from hemascope.metrics.intervals import wilson
from hemascope.models.ensemble import Ensemble
from hemascope.models.network import CellNetwork
from hemascope.post_training.calibrate import calibrate
from hemascope.post_training.left_out import LeftOutCells, LeftOutFit, fit_left_out
from hemascope.post_training.quantise import quantise
from hemascope.preprocess import InputSpec
from hemascope.provenance import provenance
from hemascope.records import Proportion
from hemascope.serialization import to_json
from hemascope.training.recipe import Recipe
from hemascope.uncertainty.confusion import measure_confusion
from hemascope.uncertainty.image_quality import QualityLimits, fit_quality, measure_quality
from hemascope.uncertainty.image_style import fit_style
from hemascope.uncertainty.known_features import KnownFeatures, fit_known_features
from hemascope.uncertainty.laboratory import fit_laboratory_detector
from hemascope.uncertainty.model import POOR_TAIL, UncertaintyModel
from hemascope.uncertainty.ood import OODDetector, fit_cell_detector
from leave_one_out import NAMES, SIZE, Cells
from left_out_cells import images_of, join, known_cells, outputs_of, read_run, read_seeds

LABORATORIES = ("jiangxi", "bccd", "munich")
LEAST_PER_CLASS = 10
FALLBACK_AGREEMENT = 0.97  # many cells of other laboratories lie near the border of two classes
SPEC = InputSpec(SIZE, 0.6, 20.76)
CALIBRATED = "PBC, a fifth of split pool"
LEFT_OUT = "Jiangxi, BCCD and Munich, each left out of training in turn"
TRAINING_DATA = (
    "PBC (Acevedo et al. 2020, CC BY 4.0), split train and four fifths of split pool; BCCD (MIT); "
    "Munich AML Morphology (Matek et al. 2019, CC BY 3.0); Jiangxi (Zheng et al. 2018, GPL-3.0), "
    "cells of no class of the model among them; begun with ImageNet's weights"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--bundle", type=Path, help="folder for the bundle of the runs home and all"
    )
    parser.add_argument("--pbc", type=Path, help="PBC's manifest, for --bundle")
    arguments = parser.parse_args()
    if arguments.bundle is not None and arguments.pbc is None:
        parser.error("--bundle needs --pbc")
    torch.set_num_threads(1)
    cells = Cells(arguments.cells)
    asked = {name: ask(cells, arguments.runs, name) for name in LABORATORIES}
    tables = arguments.out.with_suffix("")
    tables.mkdir(exist_ok=True)
    for name, said in asked.items():
        write_table(tables / f"{name}.csv", cells, said, name)
    results = {name: measure(asked, name) for name in LABORATORIES}
    left_out = join(asked.values())
    write_atomic(
        arguments.out,
        to_json(
            {
                "classes": NAMES,
                "laboratories": results,
                "shipped": fit_left_out(left_out, NAMES),
                "provenance": provenance(),
            }
        ),
    )
    print(json.dumps(json.loads(to_json(results)), indent=1))
    if arguments.bundle is not None:
        bundle = make_bundle(cells, arguments.runs, arguments.pbc, left_out, results)
        write_bundle(bundle, arguments.bundle)


def cell_detector(cells: Cells, network: Ensemble, without: str, limit: float) -> OODDetector:
    known = known_cells(cells, without)
    _, features, _ = outputs_of(network, images_of(cells, known))
    return fit_cell_detector(features, cells.targets[known], limit)


def ask(cells: Cells, runs: Path, laboratory: str) -> LeftOutCells:
    """What networks that were trained without a laboratory say of its cells, in one view."""
    network, _ = read_seeds(runs, laboratory)
    there = cells.laboratories == laboratory
    logits, features, _ = outputs_of(network, images_of(cells, there))
    detector = cell_detector(cells, network, laboratory, limit=0.0)
    distances = detector.standardise_cells(features)
    names = (laboratory,) * len(logits)
    return LeftOutCells(logits, distances, cells.targets[there], names)


def write_table(path: Path, cells: Cells, said: LeftOutCells, laboratory: str) -> None:
    """One row per cell: its label, its distance and its logits."""
    labels = cells.labels[cells.laboratories == laboratory]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "distance", *NAMES])
        for label, distance, logits in zip(labels, said.distances, said.logits, strict=True):
            writer.writerow([label, f"{distance:.3f}", *(f"{value:.3f}" for value in logits)])


def measure(asked: dict[str, LeftOutCells], laboratory: str) -> dict[str, Any]:
    """The figures of one laboratory, with everything else fitted to the others."""
    others = join(said for name, said in asked.items() if name != laboratory)
    fit, said = fit_left_out(others, NAMES), asked[laboratory]
    ours = said.select(said.targets >= 0)
    plain = replace(fit, offsets=(0.0,) * len(NAMES), temperature=1.0)
    present = np.flatnonzero(np.bincount(ours.targets, minlength=len(NAMES)) >= LEAST_PER_CLASS)
    everything = np.arange(len(NAMES))
    right = fit.probabilities(ours).argmax(axis=1) == ours.targets
    review = fit.sent_to_review(ours)
    strange = said.select(said.targets < 0)
    return {
        "cells": len(ours.targets),
        "fit": fit,
        "among_all": choice(fit, ours, present, everything),
        "among_present": choice(fit, ours, present, present),
        "among_all_without_prior": choice(plain, ours, present, everything),
        "review": share(review),
        "right_among_rest": share(right[~review]),
        "recalls": {name: share(right[ours.targets == index]) for index, name in enumerate(NAMES)},
        "of_no_class_to_review": share(fit.sent_to_review(strange))
        if len(strange.targets)
        else None,
    }


def choice(fit: LeftOutFit, said: LeftOutCells, rows: np.ndarray, columns: np.ndarray) -> Any:
    return measure_choice(NAMES, fit.probabilities(said), said.targets, rows, columns)


def share(flags: np.ndarray) -> Proportion:
    return wilson(int(flags.sum()), len(flags))


def agreement_error(cells: Cells, runs: Path, results: dict[str, Any]) -> float:
    """How far the share that is named alike in all symmetries is from the accuracy, in the mean of
    the laboratories that were left out."""
    errors = []
    for name, result in results.items():
        network, _ = read_seeds(runs, name)
        ours = (cells.laboratories == name) & (cells.targets >= 0)
        offsets = np.array(result["fit"].offsets)
        named = np.stack(
            [
                (outputs_of(network, np.ascontiguousarray(way))[0] + offsets).argmax(axis=1)
                for way in symmetries(images_of(cells, ours))
            ]
        )
        alike = (named == named[0]).all(axis=0)
        errors.append(abs(float(alike.mean() - (named[0] == cells.targets[ours]).mean())))
    return float(np.mean(errors))


def make_bundle(
    cells: Cells, runs: Path, pbc: Path, left_out: LeftOutCells, results: dict[str, Any]
) -> Bundle:
    """The bundle of the run `home` and those of `all`."""
    home = make_home(cells, runs / "home", pbc)
    return add_fallback(home, make_fallback(cells, runs, left_out, results))


def make_card(name: str, recipes: Sequence[Recipe], network: CellNetwork | Ensemble) -> Card:
    """The card of networks, before calibration; where recipes differ, it has the value of each."""
    each = [json.loads(to_json(recipe)) for recipe in recipes]
    values = {key: [recipe[key] for recipe in each] for key in each[0]}
    return Card(
        name=name,
        classes=BLOOD_CELLS,
        input=SPEC,
        architecture=" + ".join(recipe.model for recipe in recipes),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        model_sha256="",
        training_data=TRAINING_DATA,
        recipe={key: v[0] if v == v[:1] * len(v) else v for key, v in values.items()},
        provenance=provenance(),
    )


def make_home(cells: Cells, run: Path, pbc: Path) -> Bundle:
    """The network for PBC in eight bits, calibrated on cells of PBC that it never saw."""
    network, recipe = read_run(run)
    card = make_card("hemascope-pbc-5", [recipe], network)
    bundle = export(network, card, draw_sample(SPEC))
    bundle = calibrate(bundle, calibration_cells(pbc), CALIBRATED, int8=True)
    assert bundle.card.uncertainty is not None
    model = replace(
        bundle.card.uncertainty,
        laboratories=fit_laboratories(cells, bundle),
        style=fit_style(images_of(cells, cells.home)),
    )
    return replace(bundle, card=replace(bundle.card, uncertainty=model))


def calibration_cells(pbc: Path) -> Manifest:
    """The fifth of PBC's `pool` that Cells keeps aside as `home`."""
    manifest = read_manifest(pbc)
    rows = tuple(
        row for row in manifest.rows if row.split == "pool" and int(row.sha256[:8], 16) % 5 == 0
    )
    return replace(manifest, rows=rows)


def fit_laboratories(cells: Cells, bundle: Bundle) -> Any:
    """Recognises the four laboratories; of PBC by the cells that no network was trained on."""
    engine = Engine(bundle, 2)
    chosen = (cells.laboratories != "pbc") | cells.home
    order = np.concatenate(
        [np.flatnonzero(chosen & (cells.laboratories == name)) for name in ("pbc", *LABORATORIES)]
    )
    styles: list[AnyFloatArray] = [
        engine.outputs(images_of(cells, order[first : first + 32])).style_statistics
        for first in range(0, len(order), 32)
    ]
    names = [str(name) for name in cells.laboratories[order]]
    return fit_laboratory_detector(np.concatenate(styles), names, cells.targets[order])


def quantise_and_measure(
    cells: Cells, bundle: Bundle, fit: LeftOutFit
) -> tuple[Bundle, OODDetector, KnownFeatures, QualityLimits]:
    """The bundle in eight bits with the prior in its last layers, and what it knows of images."""
    heads = (
        Head(head.weight, head.bias + np.array(fit.offsets)) for head in read_heads(bundle).members
    )
    bundle = replace_heads(bundle, Heads(tuple(heads)))
    known = known_cells(cells, "none")
    images = images_of(cells, known)
    sample = images[np.random.default_rng(0).permutation(len(images))[:512]]
    bundle = quantise(bundle, sample, FALLBACK_AGREEMENT)
    features, targets = features_of(bundle, images), cells.targets[known]
    detector = fit_cell_detector(features, targets, fit.distance_limit)
    known_features = fit_known_features(features, targets, NAMES, read_heads(bundle).widths)
    return bundle, detector, known_features, fit_quality([measure_quality(images)], POOR_TAIL)


def features_of(bundle: Bundle, images: ImageArray) -> AnyFloatArray:
    engine = Engine(bundle, 2)
    found = [engine.outputs(images[i : i + 32]).features for i in range(0, len(images), 32)]
    return np.concatenate(found)


def make_fallback(
    cells: Cells, runs: Path, left_out: LeftOutCells, results: dict[str, Any]
) -> Bundle:
    """The network for all other laboratories, calibrated on what was said of those left out."""
    fit = fit_left_out(left_out, NAMES)
    network, recipes = read_seeds(runs, "all")
    card = make_card("hemascope-laboratories-2", recipes, network)
    bundle = export(network, card, draw_sample(SPEC))
    bundle, detector, known_features, quality = quantise_and_measure(cells, bundle, fit)
    model = UncertaintyModel(
        calibrated_on=LEFT_OUT,
        images=sum(result["cells"] for result in results.values()),
        set_threshold=fit.set_threshold,
        class_thresholds=fit.class_thresholds,
        least_probability=fit.least_probability,
        ood_detector=detector,
        quality=quality,
    )
    metrics = tuple(
        Metric(f"{name}, left out", "accuracy", result["among_all"].accuracy)
        for name, result in results.items()
    )
    even = left_out.of_classes()
    confusion = measure_confusion(
        LEFT_OUT,
        np.asarray(even.targets, dtype=np.int64),
        fit.probabilities(even).argmax(axis=1),
        fit.sent_to_review(even),
        len(NAMES),
    )
    card = replace(
        bundle.card,
        temperature=fit.temperature,
        uncertainty=model,
        confusion=confusion,
        metrics=metrics,
        agreement_error=agreement_error(cells, runs, results),
        known_features=known_features,
    )
    return replace(bundle, card=card)


if __name__ == "__main__":
    main()
