"""What several answers to one image bring, and cost: of an ensemble, and of symmetries.

Takes runs that differ in their seed only, or one. The first alone, all of them as an ensemble,
each with and without test-time symmetries: accuracy, calibration and Brier score on split `test`,
after a temperature that is fitted on a part of split `pool`; how well the least probability and
the disagreement tell mistakes; and the time, as a multiple of the first alone in the same run.

With --snapshots, also those of one run of several cycles.

    pip install 'hemascope[train]'
    python benchmarks/ensembles.py pbc/splits.csv runs/a runs/b runs/c --snapshots runs/d \
        --out ensembles.json
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.arrays import BoolArray, Float32Array, FloatArray, ImageArray, IntArray
from hemascope.bundle.bundle import Bundle
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.evaluation.uncertainty import measure_calibration
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.classification import auroc
from hemascope.metrics.intervals import bootstrap, wilson
from hemascope.provenance import data_hash, provenance
from hemascope.records import Estimate, Proportion
from hemascope.serialization import to_json
from hemascope.training.export_runs import export_ensemble, export_run, export_snapshots
from hemascope.training.folder import RunFolder
from hemascope.uncertainty.ensemble import disagreement
from hemascope.uncertainty.temperature import fit_temperature, softmax

FITTED_ON = 1000
BATCH = 32


@dataclass(frozen=True)
class Way:
    """One way of answering. The last two are areas under curves that tell mistakes."""

    name: str
    members: int
    temperature: float
    accuracy: Proportion
    calibration_error: Estimate
    brier: Estimate
    mistakes_by_probability: Estimate
    mistakes_by_disagreement: Estimate | None
    times_the_first: float


def predictions(classifier: Classifier, images: ImageArray) -> Float32Array:
    """Logits of the members, (N,M,C)."""
    parts = [classifier.outputs(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    return np.concatenate([part.members for part in parts])


def load(manifest: Manifest, classifier: Classifier) -> tuple[ImageArray, IntArray]:
    names = classifier.card.classes.names
    images = [classifier.card.input.load(manifest.root / row.path) for row in manifest.rows]
    return np.stack(images), np.array([names.index(row.label) for row in manifest.rows])


def measure(name: str, bundle: Bundle, tta: bool, pool: Manifest, test: Manifest) -> Way:
    classifier = Classifier(bundle, tta=tta)
    images, targets = load(pool, classifier)
    temperature = fit_temperature(predictions(classifier, images).mean(axis=1), targets)
    images, targets = load(test, classifier)
    started = time.perf_counter()
    members = predictions(classifier, images)
    seconds = time.perf_counter() - started
    probabilities = softmax(members.mean(axis=1), temperature)
    right = probabilities.argmax(axis=1) == targets
    found = measure_calibration(probabilities, targets)
    several = members.shape[1] > 1
    return Way(
        name=name,
        members=members.shape[1],
        temperature=temperature,
        accuracy=wilson(int(right.sum()), len(right)),
        calibration_error=found.expected_calibration_error,
        brier=found.brier,
        mistakes_by_probability=tells(-probabilities.max(axis=1), right),
        mistakes_by_disagreement=(
            tells(disagreement(members, temperature), right) if several else None
        ),
        times_the_first=seconds,
    )


def tells(scores: FloatArray, right: BoolArray) -> Estimate:
    """The area under the curve of telling mistakes, which should have the higher scores."""
    ranks, kinds = scores[:, None], right.astype(np.int64)
    return bootstrap(lambda weights: auroc(ranks, kinds, weights), len(right))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--snapshots", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    manifest = read_manifest(chosen.manifest)
    pool, test = manifest.select("pool"), manifest.select("test")
    order = np.random.default_rng(0).permutation(len(pool.rows))[:FITTED_ON]
    pool = Manifest(pool.root, tuple(pool.rows[i] for i in order))
    folders = [RunFolder(run) for run in chosen.runs]
    single = export_run(folders[0])
    ways = [
        measure("one network", single, False, pool, test),
        measure("one network, symmetries", single, True, pool, test),
    ]
    if len(folders) > 1:
        ensemble = export_ensemble(folders)
        ways += [
            measure(f"ensemble of {len(folders)}", ensemble, False, pool, test),
            measure(f"ensemble of {len(folders)}, symmetries", ensemble, True, pool, test),
        ]
    if chosen.snapshots is not None:
        run = RunFolder(chosen.snapshots)
        ways += [
            measure("last of the snapshots", export_run(run), False, pool, test),
            measure("snapshots of one run", export_snapshots(run), False, pool, test),
        ]
    first = ways[0].times_the_first
    ways = [Way(**{**vars(way), "times_the_first": way.times_the_first / first}) for way in ways]
    for way in ways:
        print(
            f"{way.name}: accuracy {way.accuracy.value:.3f}, calibration error "
            f"{way.calibration_error.value:.4f}, Brier {way.brier.value:.4f}, "
            f"{way.times_the_first:.1f} times the time"
        )
    facts = provenance(data_hash((row.sha256 or row.path, row.label) for row in test.rows))
    write_atomic(chosen.out, to_json({"ways": ways, "provenance": facts}))


if __name__ == "__main__":
    main()
