"""How much a few labelled cells of another laboratory help, and what more of them could.

    python benchmarks/adaptation.py jiangxi bccd --out docs/evaluation/adaptation.json

The folders are those of the sites of the same names. Ten cells of each class that has 20 or more
are drawn, the model that ships is adapted to them, and names all others of these classes, in one
look each and in eight (`--tta`): among all of the model's classes, and among the shared ones only.
Again and again with other draws; balanced accuracy, its mean over the draws with Student's 95 %
interval, which is of the draws and not of the cells, and its least and most.

The ceiling is the same last layer, fitted to four fifths of all these cells, the classes weighing
alike, and naming the fifth that is left.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from hemascope.arrays import AnyFloatArray, IntArray
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.bundle.heads import read_heads
from hemascope.data.external import read_site
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.class_subset import AT_LEAST
from hemascope.metrics.classification import balanced_accuracy, confusion_matrix
from hemascope.post_training.adapt import FOLDS, adapt, fit_views, folds_of
from hemascope.post_training.check_cells import measure_cells
from hemascope.provenance import provenance
from hemascope.serialization import to_json

MODES = {"one": False, "eight": True}
READINGS = ("all", "shared")
Accuracies = dict[str, dict[str, float]]  # by look and reading


def draw_cells(cells: Manifest, each: int, seed: int) -> Manifest:
    """So many cells of each class."""
    order = np.random.default_rng(seed).permutation(len(cells.rows))
    counts: Counter[str] = Counter()
    chosen: list[ManifestRow] = []
    for index in order:
        row = cells.rows[index]
        if counts[row.label] < each:
            counts[row.label] += 1
            chosen.append(row)
    return replace(cells, rows=tuple(chosen))


def balanced(scores: AnyFloatArray, targets: IntArray) -> dict[str, float]:
    """Balanced accuracy of scores (N,C), named among all C classes and among those of the targets.

    It is the mean recall of the classes that there are targets (N,) of.
    """
    shared = np.unique(targets)
    predicted = {"all": scores.argmax(axis=1), "shared": shared[scores[:, shared].argmax(axis=1)]}
    matrices = {k: confusion_matrix(targets, v, scores.shape[1]) for k, v in predicted.items()}
    return {k: float(balanced_accuracy(matrix)) for k, matrix in matrices.items()}


def over_draws(found: list[float]) -> dict[str, float]:
    """Mean of a figure over D > 1 draws, its 95 % interval, and the least and the most."""
    mean, count = float(np.mean(found)), len(found)
    half = float(student.ppf(0.975, count - 1) * np.std(found, ddof=1) / np.sqrt(count))
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "least": min(found),
        "most": max(found),
    }


def ceiling(bundle: Bundle, cells: Manifest) -> Accuracies:
    """Balanced accuracy, by look and reading, of a layer that is fitted to four fifths of all."""
    old, classes = read_heads(bundle), bundle.card.classes
    measured = measure_cells(Classifier(bundle), cells, classes)
    features, targets = measured.measures.features, np.array(measured.measures.targets)
    folds = folds_of(targets)
    heads = []
    for fold in range(FOLDS):
        rows = alike(np.flatnonzero(folds != fold), targets)
        with threadpool_limits(1):
            heads.append(fit_views(features[rows], targets[rows], old))
    images = [bundle.card.input.load(row.view(cells.root)) for row in measured.rows]
    found = {}
    for mode, tta in MODES.items():
        classifier = Classifier(bundle, tta=tta)
        inputs = np.concatenate([classifier.outputs(image[None]).features for image in images])
        logits = [heads[fold](row[None]) for fold, row in zip(folds, inputs, strict=True)]
        found[mode] = balanced(np.concatenate(logits), targets)
    return found


def alike(rows: IntArray, targets: IntArray) -> IntArray:
    """Rows of which every class has as many, those of the smaller ones more than once."""
    groups = [rows[targets[rows] == k] for k in np.unique(targets[rows])]
    most = max(map(len, groups))
    return np.concatenate([np.resize(group, most) for group in groups])


def one_draw(
    bundle: Bundle, cells: Manifest, chosen: Manifest, name: str
) -> tuple[Accuracies, float]:
    """Balanced accuracy of all cells but the chosen ones, and the seconds adapting took."""
    classes = bundle.card.classes
    started = time.perf_counter()
    adapted = adapt(bundle, chosen, name)
    seconds = time.perf_counter() - started
    rest = replace(cells, rows=tuple(row for row in cells.rows if row not in chosen.rows))
    targets = np.array([classes.index(row.label) for row in rest.rows])
    found = {}
    for mode, tta in MODES.items():
        predictions = Classifier(adapted, tta=tta).predict(rest.views())
        scores = np.array([[a.probabilities[k] for k in classes.names] for a in predictions])
        found[mode] = balanced(scores, targets)
    return found, seconds


def of_site(bundle: Bundle, folder: Path, each: int, draws: int) -> dict[str, Any]:
    """All that is measured on a site."""
    cells, names = read_site(folder.name, folder), bundle.card.classes.names
    counts = Counter(row.label for row in cells.rows)
    rows = (row for row in cells.rows if row.label in names and counts[row.label] >= AT_LEAST)
    cells = replace(cells, rows=tuple(rows))
    found, seconds = [], []
    for seed in range(draws):
        scores, counts = one_draw(bundle, cells, draw_cells(cells, each, seed), folder.name)
        print(folder.name, seed, f"{counts:.0f} s", scores, flush=True)
        found.append(scores)
        seconds.append(counts)
    shared = len(cells.class_names())
    return {
        "cells": dict(counts),
        "cells_per_class": each,
        "draws": draws,
        "predicted": len(cells) - each * shared,
        "seconds": max(seconds),
        "balanced_accuracy": {
            mode: {r: over_draws([scores[mode][r] for scores in found]) for r in READINGS}
            for mode in MODES
        },
        "ceiling": {"cells": len(cells), **ceiling(bundle.fallback or bundle, cells)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sites", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cells-per-class", type=int, default=10)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    bundle = read_bundle()
    sites = {
        folder.name: of_site(bundle, folder, options.cells_per_class, options.draws)
        for folder in options.sites
    }
    means = {
        mode: {
            reading: float(
                np.mean([s["balanced_accuracy"][mode][reading]["mean"] for s in sites.values()])
            )
            for reading in READINGS
        }
        for mode in MODES
    }
    adapted = (bundle.fallback or bundle).card.model_sha256
    results = {
        "model_sha256": adapted,
        "sites": sites,
        "mean_of_sites": means,
        "provenance": provenance(),
    }
    write_atomic(options.out, to_json(results))


if __name__ == "__main__":
    main()
