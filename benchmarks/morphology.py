"""Fits attributes and subtypes to a bundle's features, and measures them on split `test`.

    python benchmarks/morphology.py DATA --bundle BUNDLE --out NEW_BUNDLE --results docs/evaluation

DATA holds the folders pbc and wbcatt. The layers are fitted on all rows of PBC but those of split
`test`, and the new bundle is written. Then `attributes.json` and `maturation.png` in the folder of
results say how it does on `test`, beside WBCAtt's second annotator, and what the audit of labels
says of the cells that it puts on the other side of the border between bands and metamyelocytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hemascope.bundle.bundle import read_bundle, write_bundle
from hemascope.data.attributes import read_attributes
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.evaluation.morphology import measure_morphology
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.post_training.fit_morphology import fit_morphology
from hemascope.provenance import data_hash, provenance
from hemascope.records import Audit
from hemascope.reports.figures import draw_maturation
from hemascope.serialization import from_json, to_json

AUDIT = Path(__file__).parents[1] / "docs" / "evaluation" / "audit_test.json"
NEXT_TO_EACH_OTHER = ("metamyelocyte", "band neutrophil")
CODES = ("MMY", "BNE")


def judge_border(classifier: Classifier, test: Manifest) -> dict[str, Any]:
    """Bands and metamyelocytes that are taken for one another, and how many the audit lists.

    The audit ranks labels that a network speaks against which was not trained on them.
    """
    listed = {issue.path for issue in from_json(AUDIT.read_bytes(), Audit).issues}
    rows = [row for row in test.rows if row.subtype in CODES]
    confused = []
    predictions = classifier.stream([row.view(test.root) for row in rows])
    for row, made in zip(rows, predictions, strict=True):
        own = NEXT_TO_EACH_OTHER[CODES.index(row.subtype)]
        if made.subtype in NEXT_TO_EACH_OTHER and made.subtype != own:
            confused.append(row.path)
    return {
        "cells": len(rows),
        "listed": sum(row.path in listed for row in rows),
        "confused": confused,
        "confused_and_listed": [path for path in confused if path in listed],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path, help="by default the one that ships")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new bundle")
    parser.add_argument("--results", type=Path, required=True, help="folder of attributes.json")
    parser.add_argument("--measure-only", action="store_true", help="--out is fitted already")
    chosen = parser.parse_args()
    manifest = read_manifest(chosen.data / "pbc" / "splits.csv")
    tables = chosen.data / "wbcatt"
    first = read_attributes(tables / "attributes.csv")
    second = read_attributes(tables / "reannotation.csv")
    if not chosen.measure_only:
        source = read_bundle(chosen.bundle)
        fitted = fit_morphology(source, manifest, "PBC and WBCAtt, all but split test", first)
        write_bundle(fitted, chosen.out)
    classifier = Classifier(chosen.out)
    test = manifest.select("test")
    found = measure_morphology(classifier, test, first, second)
    facts = provenance(data_hash((row.sha256, row.label) for row in test.rows))
    result = {
        "model": classifier.card.name,
        "morphology": found,
        "border": judge_border(classifier, test),
        "provenance": facts | {"model_sha256": classifier.card.model_sha256},
    }
    chosen.results.mkdir(parents=True, exist_ok=True)
    write_atomic(chosen.results / "attributes.json", to_json(result))
    if found.maturation is not None:
        write_atomic(chosen.results / "maturation.png", draw_maturation(found.maturation))
    if found.mean is not None:
        accuracy, f1 = found.mean.accuracy, found.mean.macro_f1
        print(f"mean accuracy {accuracy.value:.4f}, macro F1 {f1.value:.4f}, n = {accuracy.n}")
    for row in found.per_subtype:
        print(f"{row.subtype}: {row.recall.successes} of {row.recall.n}")


if __name__ == "__main__":
    main()
