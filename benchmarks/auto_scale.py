"""The scale that images have when nobody says it: how right it is, and what it does to accuracy.

    python benchmarks/auto_scale.py DATA docs/evaluation/auto_scale.json --runs RUNS

For PBC's test split, Jiangxi, Munich and the tight crops of BCCD's cells: the scale that
`find_scale` finds in twenty random folders of 60 cells, and in folders of one class alone, beside
the one that is known; and how many cells are named rightly at the scale of the training images, at
the scale that is found, and at the known one. PBC is named by the model that ships, and each other
laboratory by the networks in RUNS that were trained without it (leave_one_out.py), with the prior
that was fitted to the two others (left_out.json); the same networks tell the classes by which white
cells are measured. The locator never saw images of Jiangxi or
Munich; it was trained on fields of BCCD and on images of PBC.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hemascope.bundle.export import draw_sample, export
from hemascope.bundle.heads import Head, Heads, read_heads, replace_heads
from hemascope.classes import BLOOD_CELLS
from hemascope.data.external import read_site
from hemascope.data.manifest import Manifest, ManifestRow, read_manifest
from hemascope.data.open_manifest import open_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.post_training.left_out import balanced_accuracy
from hemascope.preprocess import decode
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.smear.locate import Locator
from hemascope.smear.measure_scales import find_scale
from left_out_cells import read_seeds
from several_laboratories import make_card

PBC_UM, BCCD_UM = 20.76 / (0.6 * 360), 0.0691  # BCCD: the median of its fields, by red cells
FOLDERS, CELLS, LEAST = 20, 60, 12
LEFT_OUT = Path("docs/evaluation/left_out.json")
COMMAND = "python benchmarks/auto_scale.py DATA docs/evaluation/auto_scale.json --runs RUNS"


def read_sites(data: Path) -> dict[str, tuple[Manifest, float]]:
    """The cells of each laboratory, of the model's classes and without a scale, and their scale."""
    sites = {"pbc": (read_manifest(data / "pbc" / "splits.csv").select("test"), PBC_UM)}
    for name in ("jiangxi", "munich"):
        manifest = read_site(name, data / name)
        sites[name] = (manifest, manifest.rows[0].um_per_pixel or 0.0)
    sites["bccd crops"] = (open_manifest(data / "bccd_crops"), BCCD_UM)
    return {name: (_without_scale(manifest), width) for name, (manifest, width) in sites.items()}


def _without_scale(manifest: Manifest) -> Manifest:
    known, _ = manifest.separate_outliers(BLOOD_CELLS)
    return replace(known, rows=tuple(replace(row, um_per_pixel=None) for row in known.rows))


def describe_found(
    manifest: Manifest, known: float, classifier: Classifier, locator: Locator
) -> dict[str, Any]:
    """How the scale that is found lies beside the known one: in random folders, and by class."""
    rng, spec = np.random.default_rng(0), classifier.card.input
    assert spec.microns is not None

    def ratio(rows: Sequence[ManifestRow]) -> tuple[float, str]:
        views = [row.view(manifest.root) for row in rows]
        found = find_scale(views, classifier.bundle, locator)
        if found.um_per_pixel is not None:
            return found.um_per_pixel / known, found.note
        sides = [spec.side(decode(view.image)) for view in views]
        return float(spec.microns / np.median(sides)) / known, found.note

    folders = [
        ratio([manifest.rows[index] for index in rng.permutation(len(manifest.rows))[:CELLS]])
        for _ in range(FOLDERS)
    ]
    low, middle, high = np.percentile([value for value, _ in folders], (0, 50, 100)).tolist()
    alone = {}
    for label in manifest.class_names():
        rows = [row for row in manifest.rows if row.label == label]
        if len(rows) >= LEAST:
            value, note = ratio(rows)
            alone[label] = {"found_over_known": value, "note": note}
    return {
        "folders": FOLDERS,
        "cells_of_each": min(CELLS, len(manifest.rows)),
        "found_over_known": {"least": low, "median": middle, "largest": high},
        "notes": sorted({note for _, note in folders}),
        "one_class_alone": alone,
    }


def measure(
    manifest: Manifest, known: float, classifier: Classifier, locator: Locator
) -> dict[str, Any]:
    """Accuracy by each way to a scale."""
    found = find_scale(manifest.views(), classifier.bundle, locator)
    targets = np.array([BLOOD_CELLS.index(row.label) for row in manifest.rows])
    result = {"cells": len(targets), "found": found, "known_um_per_pixel": known}
    widths = {"training_scale": None, "found_scale": found.um_per_pixel, "known_scale": known}
    for way, width in widths.items():
        predictions = classifier.predict(manifest.fill_scale(width).views())
        named = np.array([BLOOD_CELLS.index(one.label or "") for one in predictions])
        result[way] = {
            "accuracy": wilson(int((named == targets).sum()), len(targets)),
            "balanced_accuracy": balanced_accuracy(named, targets),
        }
    return result


def classifier_of(runs: Path, laboratory: str) -> Classifier:
    """The model that ships, for PBC; else networks that never saw a laboratory, with the prior and
    the temperature that were fitted to others."""
    if laboratory == "pbc":
        return Classifier()
    network, recipes = read_seeds(runs, laboratory)
    card = make_card(f"without {laboratory}", recipes, network)
    bundle = export(network, card, draw_sample(card.input))
    fit = json.loads(LEFT_OUT.read_text())["laboratories"][laboratory]["fit"]
    heads = (
        Head(head.weight, head.bias + np.array(fit["offsets"]))
        for head in read_heads(bundle).members
    )
    bundle = replace_heads(bundle, Heads(tuple(heads)))
    return Classifier(replace(bundle, card=replace(bundle.card, temperature=fit["temperature"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    asked = parser.parse_args()
    locator = Locator.from_bundle()
    result: dict[str, Any] = {"laboratories": {}}
    for site, (manifest, known) in read_sites(asked.data).items():
        classifier = classifier_of(asked.runs, site.split()[0])
        result["laboratories"][site] = {
            **describe_found(manifest, known, classifier, locator),
            **measure(manifest, known, classifier, locator),
        }
        print(site, to_json(result["laboratories"][site]).decode(), flush=True)
    result["command"] = COMMAND
    result["model"] = Classifier().card.model_sha256
    result["locator"] = locator.card.model_sha256
    result["provenance"] = provenance()
    write_atomic(asked.out, to_json(result))


if __name__ == "__main__":
    main()
