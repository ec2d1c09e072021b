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
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student
from threadpoolctl import threadpool_limits

from hemascope.arrays import AnyFloatArray, IntArray
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.bundle.heads import read_heads
from hemascope.data.external import LabelledCell, read_site
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.class_subset import AT_LEAST
from hemascope.metrics.classification import balanced_accuracy, confusion_matrix
from hemascope.post_training.adapt import FOLDS, adapt, flat, folds_of, seen
from hemascope.post_training.fit_heads import fit_heads
from hemascope.provenance import provenance
from hemascope.serialization import to_json

LOOKS = {"one": False, "eight": True}
READINGS = ("all", "shared")
Scores = dict[str, dict[str, float]]  # by look and reading


def drawn(cells: list[LabelledCell], each: int, seed: int) -> list[LabelledCell]:
    """So many cells of each class."""
    order = np.random.default_rng(seed).permutation(len(cells))
    taken: Counter[str] = Counter()
    chosen = []
    for place in order:
        cell = cells[place]
        if taken[cell.label] < each:
            taken[cell.label] += 1
            chosen.append(cell)
    return chosen


def balanced(scores: AnyFloatArray, targets: IntArray) -> dict[str, float]:
    """Balanced accuracy of scores (N,C), named among all C classes and among those of the targets.

    It is the mean recall of the classes that there are targets (N,) of.
    """
    shared = np.unique(targets)
    named = {"all": scores.argmax(axis=1), "shared": shared[scores[:, shared].argmax(axis=1)]}
    matrices = {k: confusion_matrix(targets, v, scores.shape[1]) for k, v in named.items()}
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


def ceiling(bundle: Bundle, cells: list[LabelledCell]) -> Scores:
    """Balanced accuracy, by look and reading, of a layer that is fitted to four fifths of all."""
    old, classes = read_heads(bundle), bundle.card.classes
    features, read = seen(Classifier(bundle), cells)  # (N,V,F)
    targets = np.array([classes.index(cell.label) for cell in read])
    folds = folds_of(targets)
    heads = []
    for fold in range(FOLDS):
        rows = alike(np.flatnonzero(folds != fold), targets)
        with threadpool_limits(1):
            heads.append(fit_heads(*flat(features[rows], targets[rows]), old))
    images = [bundle.card.input.load(cell.view) for cell in read]
    found = {}
    for look, tta in LOOKS.items():
        classifier = Classifier(bundle, tta=tta)
        inputs = np.concatenate([classifier.scores(image[None]).features for image in images])
        logits = [heads[fold](row[None]) for fold, row in zip(folds, inputs, strict=True)]
        found[look] = balanced(np.concatenate(logits), targets)
    return found


def alike(rows: IntArray, targets: IntArray) -> IntArray:
    """Rows of which every class has as many, those of the smaller ones more than once."""
    groups = [rows[targets[rows] == k] for k in np.unique(targets[rows])]
    most = max(map(len, groups))
    return np.concatenate([np.resize(group, most) for group in groups])


def one_draw(
    bundle: Bundle, cells: list[LabelledCell], chosen: list[LabelledCell], name: str
) -> tuple[Scores, float]:
    """Balanced accuracy of all cells but the chosen ones, and the seconds adapting took."""
    classes = bundle.card.classes
    started = time.perf_counter()
    adapted = adapt(bundle, chosen, name)
    seconds = time.perf_counter() - started
    paths = {cell.path for cell in chosen}
    rest = [cell for cell in cells if cell.path not in paths]
    targets = np.array([classes.index(cell.label) for cell in rest])
    found = {}
    for look, tta in LOOKS.items():
        answers = Classifier(adapted, tta=tta).predict([cell.view for cell in rest])
        scores = np.array([[a.probabilities[k] for k in classes.names] for a in answers])
        found[look] = balanced(scores, targets)
    return found, seconds


def of_site(bundle: Bundle, folder: Path, each: int, draws: int) -> dict[str, Any]:
    """All that is measured on a site."""
    cells, names = read_site(folder.name, folder), bundle.card.classes.names
    counts = Counter(cell.label for cell in cells)
    cells = [c for c in cells if c.label in names and counts[c.label] >= AT_LEAST]
    found, seconds = [], []
    for seed in range(draws):
        scores, taken = one_draw(bundle, cells, drawn(cells, each, seed), folder.name)
        print(folder.name, seed, f"{taken:.0f} s", scores, flush=True)
        found.append(scores)
        seconds.append(taken)
    shared = len({cell.label for cell in cells})
    return {
        "cells": dict(counts),
        "each": each,
        "draws": draws,
        "named": len(cells) - each * shared,
        "seconds": max(seconds),
        "balanced_accuracy": {
            look: {r: over_draws([scores[look][r] for scores in found]) for r in READINGS}
            for look in LOOKS
        },
        "ceiling": {"cells": len(cells), **ceiling(bundle.elsewhere or bundle, cells)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sites", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    bundle = read_bundle()
    sites = {
        folder.name: of_site(bundle, folder, options.each, options.draws)
        for folder in options.sites
    }
    means = {
        look: {
            reading: float(
                np.mean([s["balanced_accuracy"][look][reading]["mean"] for s in sites.values()])
            )
            for reading in READINGS
        }
        for look in LOOKS
    }
    adapted = (bundle.elsewhere or bundle).card.model_sha256
    results = {
        "model_sha256": adapted,
        "sites": sites,
        "mean_of_sites": means,
        "provenance": provenance(),
    }
    write_atomic(options.out, to_json(results))


if __name__ == "__main__":
    main()
