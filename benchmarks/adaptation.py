"""How much a few labelled cells of another laboratory help.

    python benchmarks/adaptation.py jiangxi bccd --out docs/evaluation/adaptation.json

The folders are those of the sites of the same names. Ten cells of each class that has 20 or more
are drawn, the model that ships is adapted to them, and names all others of these classes, in one
look each and in eight (`--tta`). Again and again with other draws; balanced accuracy, its mean and
least and most over the draws.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np

from hemascope.bundle.bundle import read_bundle
from hemascope.bundle.classifier import Classifier
from hemascope.data.sites import LabelledCell, read_site
from hemascope.reports.adapt import adapt
from hemascope.results import to_json, written_whole
from hemascope.scoring.shared import AT_LEAST


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


def recalls(classifier: Classifier, cells: list[LabelledCell]) -> dict[str, float]:
    """The share that is named right of each class."""
    answers = classifier.predict([cell.view for cell in cells])
    right: dict[str, list[bool]] = {}
    for cell, answer in zip(cells, answers, strict=True):
        right.setdefault(cell.label, []).append(answer.label == cell.label)
    return {label: float(np.mean(named)) for label, named in sorted(right.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sites", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    bundle = read_bundle()
    results = {}
    for folder in options.sites:
        cells = read_site(folder.name, folder)
        counts = Counter(cell.label for cell in cells)
        names = bundle.card.classes.names
        cells = [cell for cell in cells if cell.label in names and counts[cell.label] >= AT_LEAST]
        seconds: list[float] = []
        scores: dict[str, list[float]] = {}
        for seed in range(options.draws):
            chosen = drawn(cells, options.each, seed)
            started = time.perf_counter()
            adapted = adapt(bundle, chosen, folder.name)
            seconds.append(time.perf_counter() - started)
            paths = {cell.path for cell in chosen}
            rest = [cell for cell in cells if cell.path not in paths]
            for looks, tta in (("one", False), ("eight", True)):
                found = recalls(Classifier(adapted, tta=tta), rest)
                scores.setdefault(looks, []).append(float(np.mean(list(found.values()))))
                print(folder.name, seed, looks, scores[looks][-1], found, flush=True)
        results[folder.name] = {
            "cells": dict(counts),
            "each": options.each,
            "draws": options.draws,
            "named": len(rest),
            "seconds": max(seconds),
            "balanced_accuracy": {
                looks: {"mean": float(np.mean(of)), "least": min(of), "most": max(of)}
                for looks, of in scores.items()
            },
        }
    with written_whole(options.out) as temporary:
        temporary.write_bytes(to_json(results))


if __name__ == "__main__":
    main()
