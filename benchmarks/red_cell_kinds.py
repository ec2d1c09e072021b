"""What `adapt --new-class` makes of twelve kinds of red cells, which no network here has seen.

    python benchmarks/red_cell_kinds.py DATA --out docs/evaluation/red_cell_kinds.json

DATA is the folder of the public sets, see its README; the cells are those of Chula RBC-12. In each
draw the model that ships is adapted to up to twenty cells of each kind, from the fields of split
`train`, and names up to sixty others of each, from the fields of split `test`. A cell is shown as
large as it is, and twice as large, since the model expects white cells. Red cells tell the scale.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hemascope import Classifier, adapt
from hemascope.arrays import IntArray
from hemascope.bundle.bundle import read_bundle
from hemascope.data.manifest import Manifest, ManifestRow
from hemascope.data.marked_fields import read_chula
from hemascope.errors import HemascopeWarning
from hemascope.files import write_atomic
from hemascope.metrics.intervals import wilson
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.smear.locate import Locator

LABELLED, MEASURED, LEAST = 20, 60, 20  # cells of a kind; kinds with fewer in a split are left out
KINDS_OF_NOTHING = ("uncategorised",)
ENLARGED = (1.0, 2.0)


def read_cells(data: Path) -> tuple[list[ManifestRow], int]:
    """The marked red cells with their scales and splits, and the fields that tell no scale."""
    with (data / "fields" / "chula" / "cells.csv").open(newline="", encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    locator, rows, untold = Locator.from_bundle(), [], 0
    for field in read_chula(data):
        scale, _ = locator.scale_of(field.path)
        if scale is None or scale.um_per_pixel is None:
            untold += 1
            continue
        rows += [
            ManifestRow(
                str(field.path.relative_to(data)),
                point["kind"],
                split=field.split,
                um_per_pixel=scale.um_per_pixel,
                x=float(point["x"]),
                y=float(point["y"]),
            )
            for point in points
            if point["field"] == field.path.name and point["kind"] not in KINDS_OF_NOTHING
        ]
    return rows, untold


def draw(rows: list[ManifestRow], split: str, kinds: list[str], most: int, seed: int) -> Any:
    """Up to so many cells of each kind of a split."""
    random = np.random.default_rng(seed)
    drawn: list[ManifestRow] = []
    for kind in kinds:
        those = [row for row in rows if row.split == split and row.label == kind]
        drawn += [those[place] for place in random.permutation(len(those))[:most]]
    return tuple(drawn)


def named_by(data: Path, rows: Any, kinds: list[str], enlarged: float, seed: int) -> Any:
    """The kinds of the measured cells, and what they were named after adapting to the others."""
    larger = [replace(row, um_per_pixel=(row.um_per_pixel or 1) / enlarged) for row in rows]
    manifest = Manifest(data, draw(larger, "train", kinds, LABELLED, seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HemascopeWarning)  # of labels that contradict, and of scale
        bundle = adapt(read_bundle(), manifest, "Chula RBC-12", new_classes=kinds)
    measured = draw(larger, "test", kinds, MEASURED, seed)
    predictions = Classifier(bundle).predict([row.view(data) for row in measured])
    return [(row.label, p.label) for row, p in zip(measured, predictions, strict=True)]


def summarise(pairs: list[tuple[str, str]], kinds: list[str], draws: int) -> dict[str, Any]:
    """Recall of each kind over the draws, their mean, and the commonest wrong name."""
    result: dict[str, Any] = {}
    for kind in kinds:
        names = Counter(named for true, named in pairs if true == kind)
        wrong = [(name, count) for name, count in names.most_common() if name != kind]
        total = sum(names.values())
        result[kind] = {
            "cells": total // draws,
            "recall": wilson(round(names[kind] / draws), total // draws),
            "taken_for": wrong[0][0] if wrong else None,
            "share": wrong[0][1] / total if wrong else 0.0,
        }
    return result


def balanced(pairs: list[tuple[str, str]], kinds: list[str]) -> float:
    """The mean recall of the kinds."""
    right = np.array([true == named for true, named in pairs])
    places: IntArray = np.array([kinds.index(true) for true, _ in pairs])
    return float(np.mean([right[places == k].mean() for k in range(len(kinds))]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    rows, untold = read_cells(options.data)
    splits = {
        split: Counter(r.label for r in rows if r.split == split) for split in ("train", "test")
    }
    kinds = [k for k in sorted(splits["train"]) if min(s[k] for s in splits.values()) >= LEAST]
    ways: dict[str, Any] = {}
    for enlarged in ENLARGED:
        draws = [
            named_by(options.data, rows, kinds, enlarged, seed) for seed in range(options.draws)
        ]
        found = [balanced(pairs, kinds) for pairs in draws]
        ways[f"{enlarged:g}"] = {
            "balanced": {"mean": float(np.mean(found)), "low": min(found), "high": max(found)},
            "kinds": summarise([pair for made in draws for pair in made], kinds, options.draws),
        }
        print(enlarged, found, flush=True)
    result = {
        "labelled": LABELLED,
        "draws": options.draws,
        "left_out": sorted(set(splits["train"] | splits["test"]) - set(kinds)),
        "fields_without_scale": untold,
        "enlarged": ways,
        "provenance": provenance(),
    }
    write_atomic(options.out, to_json(result))


if __name__ == "__main__":
    main()
