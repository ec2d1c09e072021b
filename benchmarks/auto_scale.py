"""Whether the scale that red cells tell makes predictions better or worse.

`python benchmarks/auto_scale.py DATA docs/evaluation/auto_scale.json` classifies the labelled cells
of PBC's test split and of the other laboratories with the model that ships: without a scale, with
the scale that is known of each site, and with the one that is measured in each image (`auto`).
The site's fields of BCCD are partly those that the locator was trained on; Jiangxi and Munich are
none of them.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hemascope.data.external import read_site
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.smear.locate import Locator
from hemascope.smear.measure_scales import ScaleFinder


def without_scale(manifest: Manifest) -> Manifest:
    rows = (replace(row, um_per_pixel=None) for row in manifest.rows)
    return replace(manifest, rows=tuple(rows))


def accuracy(classifier: Classifier, manifest: Manifest) -> Any:
    """The share of the cells that are predicted as labelled."""
    predictions = classifier.predict(manifest.views())
    pairs = zip(predictions, manifest.rows, strict=True)
    return asdict(wilson(sum(p.label == row.label for p, row in pairs), len(manifest.rows)))


def compare(classifier: Classifier, locator: Locator, manifest: Manifest) -> dict[str, Any]:
    """Accuracy by each way to a scale, and how the measured scales lie beside the known ones."""
    bare, finder = without_scale(manifest), ScaleFinder(locator)
    filled = finder.fill(bare)
    result: dict[str, Any] = {
        "cells": len(manifest.rows),
        "told": sum(row.um_per_pixel is not None for row in filled.rows),
        "no_scale": accuracy(classifier, bare),
        "auto": accuracy(classifier, filled),
    }
    known = [row.um_per_pixel for row in manifest.rows]
    if any(known):
        result["known_scale"] = accuracy(classifier, manifest)
        ratios = [
            row.um_per_pixel / width
            for row, width in zip(filled.rows, known, strict=True)
            if row.um_per_pixel and width
        ]
        low, middle, high = np.percentile(ratios, (5, 50, 95)).tolist()
        result["measured_over_known"] = {"5 %": low, "median": middle, "95 %": high}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    classifier, locator = Classifier(), Locator.from_bundle()
    sites = {"pbc test": read_manifest(asked.data / "pbc" / "splits.csv").select("test")}
    for name in ("jiangxi", "bccd", "munich"):
        manifest = read_site(name, asked.data / name)
        sites[name], _ = manifest.separate_outliers(classifier.card.classes)
    result: dict[str, Any] = {}
    for name, manifest in sites.items():
        result[name] = compare(classifier, locator, manifest)
        print(name, result[name], flush=True)
    result["command"] = "python benchmarks/auto_scale.py DATA docs/evaluation/auto_scale.json"
    result["model"] = classifier.card.model_sha256
    result["locator"] = locator.card.model_sha256
    result["provenance"] = provenance()
    write_atomic(asked.out, to_json(result))


if __name__ == "__main__":
    main()
