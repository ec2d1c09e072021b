"""What eight bits change: the model that ships beside the same in single precision.

    python benchmarks/eight_bits.py pbc/splits.csv --single runs/single --out eight_bits.json

`--single` is made by `hemascope calibrate` from the same run, without --int8. Both are asked
without their second network, for the images of split `test`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hemascope.bundle.bundle import read_bundle
from hemascope.data.manifest import read_manifest
from hemascope.evaluation.evaluate import evaluate
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.inference.predict import is_out_of_distribution
from hemascope.metrics.intervals import wilson
from hemascope.provenance import provenance
from hemascope.records import Estimate, Evaluation, Proportion
from hemascope.serialization import to_json


@dataclass(frozen=True)
class Figures:
    """What an evaluation says of accuracy, calibration, prediction sets and flags."""

    accuracy: Proportion
    calibration_error: Estimate
    coverage: Proportion
    reviewed: Proportion
    in_distribution: Proportion


@dataclass(frozen=True)
class EightBits:
    """Both ways' figures, and how far they agree.

    `probability_difference` is the mean over images and classes, `largest_difference` the mean over
    images of the class that differs most.
    """

    single: Figures
    eight: Figures
    same_label: Proportion
    same_flag: Proportion
    probability_difference: float
    largest_difference: float
    provenance: dict[str, str]


def figures(found: Evaluation) -> Figures:
    uncertainty = found.uncertainty
    assert uncertainty is not None
    return Figures(
        found.accuracy,
        found.expected_calibration_error,
        uncertainty.sets.coverage,
        uncertainty.reviewed,
        uncertainty.in_distribution,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--single", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cells = read_manifest(given.manifest).select("test")
    bundles = [read_bundle(given.single), read_bundle()]
    classifiers = [Classifier(replace(bundle, fallback=None)) for bundle in bundles]
    predictions = [each.predict(cells.views()) for each in classifiers]
    pairs = list(zip(*predictions, strict=True))
    referred = [(is_out_of_distribution(one), is_out_of_distribution(two)) for one, two in pairs]
    probabilities = [
        [list(prediction.probabilities.values()) for prediction in each] for each in predictions
    ]
    differences = np.abs(np.subtract(*probabilities))  # (N,C)
    found = EightBits(
        *(figures(evaluate(each, cells, "test")) for each in classifiers),
        wilson(sum(one.label == two.label for one, two in pairs), len(pairs)),
        wilson(sum(one == two for one, two in referred), len(pairs)),
        float(differences.mean()),
        float(differences.max(axis=1).mean()),
        provenance() | {"model_sha256": bundles[1].card.model_sha256},
    )
    write_atomic(given.out, to_json(found))
    print(to_json(found).decode())


if __name__ == "__main__":
    main()
