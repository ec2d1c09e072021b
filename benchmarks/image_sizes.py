"""What growing image sizes save in training, and whether they cost accuracy.

Takes runs of `hemascope train`. Each is exported in single precision and names split `test`: its
accuracy and 95 % interval; against the first run, how many images only one of both names right,
McNemar's exact test of that, and how many times less wall time its epochs take. An epoch's time is
taken from the fastest epoch of its image size among all of the runs, so that what else the machine
did meanwhile does not count; `--speed` adds runs that are looked at for that only.

    pip install 'hemascope[train,study]'
    python benchmarks/image_sizes.py pbc/splits.csv runs/fixed_224 runs/progressive --out sizes.json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.data.manifest import Manifest, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.provenance import provenance
from hemascope.records import Proportion
from hemascope.serialization import from_json, to_json
from hemascope.study.compare import sign_test
from hemascope.training.export_runs import export_run
from hemascope.training.folder import RunFacts, RunFolder
from hemascope.training.recipe import read_recipe


@dataclass(frozen=True)
class Against:
    """A run against the first one: images that only one names right, and times less wall time."""

    only_this: int
    only_the_first: int
    p_value: float
    times_less_time: float


@dataclass(frozen=True)
class Run:
    """One run; `sizes` are those of its first epoch and its last."""

    name: str
    epochs: int
    sizes: tuple[int, int]
    seconds: float
    accuracy: Proportion
    against_the_first: Against | None


@dataclass(frozen=True)
class Sizes:
    """All runs, in their order; images a second by image size."""

    runs: tuple[Run, ...]
    images_per_second: dict[str, float]
    provenance: dict[str, str]


def right_of(folder: RunFolder, cells: Manifest) -> np.ndarray:
    """Which cells the run's network names right, (N,)."""
    predictions = Classifier(export_run(folder)).predict(cells.views())
    return np.array([a.label == row.label for a, row in zip(predictions, cells.rows, strict=True)])


def speeds_of(folders: list[RunFolder]) -> dict[int, float]:
    """Images a second by image size, of the fastest epoch."""
    records = [record for folder in folders for record in folder.read_metrics()]
    return {
        size: max(r.images_per_second for r in records if r.image_size == size)
        for size in sorted({record.image_size for record in records})
    }


def seconds_of(folder: RunFolder, speeds: dict[int, float]) -> float:
    images = from_json(folder.provenance.read_bytes(), RunFacts).train_images
    return sum(images / speeds[record.image_size] for record in folder.read_metrics())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--speed", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cells = read_manifest(given.manifest).select("test")
    folders = [RunFolder(path) for path in given.runs]
    speeds = speeds_of([*folders, *(RunFolder(path) for path in given.speed)])
    right = [right_of(folder, cells) for folder in folders]
    seconds = [seconds_of(folder, speeds) for folder in folders]
    runs = []
    for folder, names_right, taken in zip(folders, right, seconds, strict=True):
        recipe = read_recipe(folder.recipe)
        against = None
        if runs:
            better, worse, p_value = sign_test(names_right[None], right[0][None])
            against = Against(better, worse, p_value, seconds[0] / taken)
        runs.append(
            Run(
                folder.path.name,
                recipe.epochs,
                (recipe.start_size or recipe.image_size, recipe.image_size),
                taken,
                wilson(int(names_right.sum()), len(cells)),
                against,
            )
        )
    by_size = {str(size): speed for size, speed in speeds.items()}
    write_atomic(given.out, to_json(Sizes(tuple(runs), by_size, provenance())))
    for run in runs:
        print(run)


if __name__ == "__main__":
    main()
