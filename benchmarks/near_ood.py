"""Near out-of-distribution: train without one class, and see whether its cells are noticed.

Each of the eight classes is left out in turn; a small DeepEfficientNet learns the other seven. The
detectors are fitted on cells of those seven that it was not trained on (split `pool`), and asked
to tell the test cells of the seven from those of the class that is left out.

    pip install 'hemascope[train]'
    python benchmarks/near_ood.py pbc/splits.csv --out runs/near

Trainings that are there are not repeated, and a killed one is resumed. Writes near_ood.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hemascope.arrays import ImageArray
from hemascope.classes import BLOOD_CELLS, ClassSet
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.classification import auroc
from hemascope.metrics.intervals import bootstrap
from hemascope.post_training.calibrate import join_outputs
from hemascope.provenance import data_hash, provenance
from hemascope.records import Estimate
from hemascope.serialization import to_json
from hemascope.training.folder import RunFolder
from hemascope.training.recipe import Recipe
from hemascope.training.run import train
from hemascope.uncertainty.ood import LabelledOutputs
from ood_detectors import detectors

RECIPE = Recipe(
    image_size=96,
    crop=0.6,
    augmentation="any_rotation",
    val_fraction=0.0,
    epochs=10,
    learning_rate=2e-3,
    warmup_epochs=2,
    weight_decay=0.02,
    drop_path_rate=0.1,
    ema_decay=0.998,
    precision="bf16",
)
FITTED_ON = 2000
BATCH = 32


@dataclass(frozen=True)
class LeftOut:
    """How well the cells of a class that the network never saw are told from the others."""

    label: str
    known: int
    unknown: int
    auroc: dict[str, Estimate]


def without(manifest: Manifest, label: str) -> Manifest:
    return replace(manifest, rows=tuple(row for row in manifest.rows if row.label != label))


def scores_of(classifier: Classifier, manifest: Manifest) -> LabelledOutputs:
    """What the graph says of a manifest's images, and their class indices (-1: not a class)."""
    names = classifier.card.classes.names
    images = [classifier.card.input.load(manifest.root / row.path) for row in manifest.rows]
    targets = [names.index(row.label) if row.label in names else -1 for row in manifest.rows]
    return seen_by(classifier, np.stack(images), targets)


def seen_by(classifier: Classifier, images: ImageArray, targets: Sequence[int]) -> LabelledOutputs:
    """What the graph says of preprocessed images (N,S,S,3), batch by batch."""
    batches = range(0, len(images), BATCH)
    return join_outputs([classifier.outputs(images[i : i + BATCH]) for i in batches], targets)


def leave_out(manifest: Manifest, label: str, out: Path, cache: Path | None) -> LeftOut:
    run = RunFolder(out / label)
    rest = without(manifest, label)
    if not (run.bundle / "card.json").exists():
        names = tuple(name for name in BLOOD_CELLS.names if name != label)
        classes = ClassSet(tuple(c for c in BLOOD_CELLS if c.name in names))
        train(RECIPE, rest, run.path, resume=run.recipe.exists(), classes=classes, cache=cache)
    classifier = Classifier(run.bundle)
    pool = rest.select("pool")
    chosen = np.random.default_rng(0).permutation(len(pool.rows))[:FITTED_ON]
    known = scores_of(classifier, replace(pool, rows=tuple(pool.rows[i] for i in chosen)))
    test = scores_of(classifier, manifest.select("test"))
    unknown = test.targets < 0
    found = {}
    for name, detector in detectors(known).items():
        ranks = detector(test)[:, None]
        found[name] = bootstrap(
            lambda weights, ranks=ranks: auroc(ranks, np.where(unknown, 0, 1), weights), len(ranks)
        )[0]
    return LeftOut(label, int((~unknown).sum()), int(unknown.sum()), found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    chosen = parser.parse_args()
    manifest = read_manifest(chosen.manifest)
    results = []
    for label in BLOOD_CELLS.names:
        results.append(leave_out(manifest, label, chosen.out, chosen.cache))
        line = ", ".join(f"{name} {value.value:.3f}" for name, value in results[-1].auroc.items())
        print(f"without {label}: {line}", flush=True)
    means = {
        name: float(np.mean([result.auroc[name].value for result in results]))
        for name in results[0].auroc
    }
    print("mean:", ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    facts = provenance(data_hash((row.sha256 or row.path, row.label) for row in manifest.rows))
    found = {
        "recipe": asdict(RECIPE),
        "mean_auroc": means,
        "left_out": results,
        "provenance": facts,
    }
    write_atomic(chosen.out / "near_ood.json", to_json(found))


if __name__ == "__main__":
    main()
