"""How often the intervals of a differential count cover the true shares.

The cells of split pool that the model was not trained on (`select_unseen`) are named once. Then,
for each sample, these cells are parted by chance into two halves: one measures the model's
confusion, and of the other so many cells are drawn in known proportions and counted as `hemascope
count` counts them. The temperature and the limits for review were fitted to the same cells, no
weights were.

    python benchmarks/differential_coverage.py pbc/splits.csv \\
        --out docs/evaluation/differential.json

With `--card FOLDER`, the confusion of all cells is written into the card of the bundle there.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.stats import binom

from hemascope.arrays import BoolArray, FloatArray, IntArray
from hemascope.bundle.card import Card, read_card, write_card
from hemascope.classes import find_counted_class
from hemascope.data.manifest import Manifest, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import exact_interval, wilson
from hemascope.provenance import provenance
from hemascope.records import Interval, Proportion
from hemascope.serialization import to_json
from hemascope.smear.counted import interval_of
from hemascope.smear.shares import count_classes, nucleated_of
from hemascope.uncertainty.confusion import Confusion, measure_confusion

KEPT_ASIDE = 5  # hashes of images that no network was trained on are multiples of this
CELLS = 200
# Shares among all nucleated cells, in the order of CLASSES.
CLASSES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "ig", "erythroblast")
COMPOSITIONS = {
    "normal": (60, 30, 6, 3, 1, 0, 0),
    "lymphocytosis": (30, 60, 6, 3, 0.5, 0.5, 0),
    "eosinophilia": (45, 25, 7, 20, 2, 1, 0),
    "left shift": (70, 15, 7, 1, 0.5, 6, 0.5),
    "left shift with erythroblasts": (45, 10, 5, 2, 3, 25, 10),
}


@dataclass(frozen=True)
class ClassCoverage:
    """Of one class: its true share among the white cells, and how often intervals held it.

    `in_theory` is how often the exact interval of 200 white cells that are all named right would.
    Widths are means, in percentage points.
    """

    label: str
    share: float
    raw: Proportion
    corrected: Proportion
    in_theory: float
    raw_bias: float
    corrected_bias: float
    raw_width: float
    corrected_width: float


@dataclass(frozen=True)
class Composition:
    name: str
    classes: tuple[ClassCoverage, ...]
    unidentified: float


@dataclass(frozen=True)
class DifferentialCoverage:
    cells: int
    samples: int
    named: int
    compositions: tuple[Composition, ...]
    mean_raw: float
    mean_corrected: float
    corrected_from: float
    corrected_to: float
    confusion: tuple[tuple[int, ...], ...]
    unidentified: tuple[int, ...]
    class_names: tuple[str, ...]
    provenance: dict[str, str]


@dataclass(frozen=True)
class Named:
    """N cells: their class indices, the indices of their names, and which have none."""

    targets: IntArray
    named: IntArray
    without: BoolArray


def select_unseen(manifest: Manifest) -> Manifest:
    """The fifth of split pool that leave_one_out.py keeps aside from all trainings."""
    pool = manifest.select("pool")
    return replace(
        pool, rows=tuple(row for row in pool.rows if int(row.sha256[:8], 16) % KEPT_ASIDE == 0)
    )


def name_cells(classifier: Classifier, path: Path) -> Named:
    manifest = select_unseen(read_manifest(path, classes=classifier.card.classes))
    classes = classifier.card.classes
    targets, named, without = [], [], []
    for row, prediction in zip(manifest.rows, classifier.stream(manifest.views()), strict=True):
        if prediction.label is None:
            continue
        targets.append(classes.index(row.label))
        named.append(classes.index(prediction.label))
        without.append(prediction.uncertainty is not None and prediction.uncertainty.review)
    return Named(np.array(targets), np.array(named), np.array(without))


def exact_coverage(share: float, n: int) -> float:
    """How often the exact interval holds a share, over all counts of n."""
    chances = binom(n, share).pmf(np.arange(n + 1))
    held = []
    for k in range(n + 1):
        found = exact_interval(k, n)
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= share <= found.high)
    return float(chances @ np.array(held))


def draw_sample(
    cells: Named, mixture: FloatArray, random: np.random.Generator
) -> tuple[Confusion, IntArray, IntArray]:
    """The confusion of one half of the cells; 200 of the other half, and those with a name."""
    calibrating = random.random(len(cells.targets)) < 0.5
    confusion = measure_confusion(
        "half",
        cells.targets[calibrating],
        cells.named[calibrating],
        cells.without[calibrating],
        len(mixture),
    )
    drawn = []
    for k, count in enumerate(random.multinomial(CELLS, mixture)):
        left = np.flatnonzero((cells.targets == k) & ~calibrating)
        drawn.append(random.choice(left, count, replace=count > len(left)))
    chosen = np.concatenate(drawn).astype(np.int64)
    return confusion, chosen, chosen[~cells.without[chosen]]


@dataclass
class Record:
    """Of one kind of interval of one class: whether each held the share, its width and its gap."""

    held: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def add(self, found: Interval, share: float) -> None:
        self.held.append(found.low - 1e-9 <= share <= found.high + 1e-9)
        self.widths.append(100 * (found.high - found.low))
        self.gaps.append(100 * (found.value - share))


def simulate(
    cells: Named, card: Card, name: str, percent: tuple[float, ...], samples: int, seed: int
) -> Composition:
    random = np.random.default_rng(seed)
    names = card.classes.names
    mixture = np.zeros(len(names))
    for label, share in zip(CLASSES, percent, strict=True):
        mixture[names.index(label)] = share / sum(percent)
    white = mixture * [find_counted_class(label).role == "white" for label in names]
    truth = dict(zip(names, (white / white.sum()).tolist(), strict=True))
    raw, corrected = defaultdict[str, Record](Record), defaultdict[str, Record](Record)
    lost = []
    for _ in range(samples):
        confusion, chosen, seen = draw_sample(cells, mixture, random)
        lost.append(1 - len(seen) / len(chosen))
        counts = Counter(names[k] for k in cells.named[seen])
        for row in count_classes(nucleated_of(counts, replace(card, confusion=confusion))):
            counted = interval_of(row.share)
            assert counted is not None
            assert row.corrected is not None
            raw[row.name].add(counted, truth[row.name])
            corrected[row.name].add(row.corrected, truth[row.name])
    coverage = tuple(
        ClassCoverage(
            label=label,
            share=truth[label],
            raw=wilson(sum(raw[label].held), samples),
            corrected=wilson(sum(corrected[label].held), samples),
            in_theory=exact_coverage(truth[label], CELLS),
            raw_bias=float(np.mean(raw[label].gaps)),
            corrected_bias=float(np.mean(corrected[label].gaps)),
            raw_width=float(np.mean(raw[label].widths)),
            corrected_width=float(np.mean(corrected[label].widths)),
        )
        for label in CLASSES
        if find_counted_class(label).role == "white"
    )
    return Composition(name, coverage, float(np.mean(lost)))


def print_coverage(result: DifferentialCoverage) -> None:
    for composition in result.compositions:
        for found in composition.classes:
            print(
                f"{composition.name:30} {found.label:12} {100 * found.share:5.1f} %  raw "
                f"{100 * found.raw.value:5.1f}  corrected {100 * found.corrected.value:5.1f}  "
                f"theory {100 * found.in_theory:5.1f}  width {found.raw_width:.1f} "
                f"{found.corrected_width:.1f}  bias {found.raw_bias:+.2f} "
                f"{found.corrected_bias:+.2f}"
            )
    print(f"mean raw {result.mean_raw:.3f}, corrected {result.mean_corrected:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--card", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    classifier = Classifier()
    card = classifier.card
    cells = name_cells(classifier, given.manifest)
    whole = measure_confusion(
        "" if card.uncertainty is None else card.uncertainty.calibrated_on,
        cells.targets,
        cells.named,
        cells.without,
        len(card.classes),
    )
    if given.card is not None:
        write_card(replace(read_card(given.card), confusion=whole), given.card)
    compositions = tuple(
        simulate(cells, card, name, percent, given.samples, seed)
        for seed, (name, percent) in enumerate(COMPOSITIONS.items())
    )
    every = [found for composition in compositions for found in composition.classes]
    raw, corrected = ([getattr(c, k).value for c in every] for k in ("raw", "corrected"))
    result = DifferentialCoverage(
        CELLS,
        given.samples,
        len(cells.targets),
        compositions,
        float(np.mean(raw)),
        float(np.mean(corrected)),
        min(corrected),
        max(corrected),
        whole.counts,
        whole.unidentified,
        card.classes.names,
        provenance() | {"model": card.name, "model_sha256": card.model_sha256},
    )
    write_atomic(given.out, to_json(result))
    print_coverage(result)


if __name__ == "__main__":
    main()
