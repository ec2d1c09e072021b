"""How often the intervals of the shares of subtypes cover the true shares.

The cells of split pool that no network was trained on are parted by chance into two halves. The
layers that tell subtypes are fitted to one half and split train, and the model's confusions are
measured on that half. Of the other half, so many cells are drawn in known proportions and counted
as `hemascope count` counts them; then the halves change places. The temperature and the limits for
review of the bundle that ships were fitted to the same cells, no weights of the network were.

    python benchmarks/subtype_coverage.py pbc/splits.csv --out docs/evaluation/subtype_coverage.json
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from differential_coverage import (
    ClassCoverage,
    Composition,
    Record,
    exact_coverage,
    select_unseen,
)
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.data.manifest import Manifest, ManifestRow, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.post_training.fit_morphology import fit_morphology
from hemascope.provenance import data_hash, provenance
from hemascope.serialization import to_json
from hemascope.smear.counted import interval_of
from hemascope.smear.shares import count_classes, nucleated_of, subtypes_of
from hemascope.subtypes import name_subtype
from hemascope.uncertainty.confusion import measure_confusion

CELLS = 200
# Shares among the white cells, in percent.
COMPOSITIONS = {
    "normal": {
        "segmented neutrophil": 57,
        "band neutrophil": 3,
        "lymphocyte": 29,
        "monocyte": 7,
        "eosinophil": 3,
        "basophil": 1,
    },
    "more bands": {
        "segmented neutrophil": 50,
        "band neutrophil": 20,
        "lymphocyte": 20,
        "monocyte": 7,
        "eosinophil": 3,
    },
    "left shift": {
        "segmented neutrophil": 45,
        "band neutrophil": 20,
        "metamyelocyte": 6,
        "myelocyte": 5,
        "promyelocyte": 2,
        "lymphocyte": 15,
        "monocyte": 7,
    },
}


@dataclass(frozen=True)
class SubtypeCoverage:
    """`drawn_from` is how many cells of each name both halves have."""

    cells: int
    samples: int
    drawn_from: dict[str, int]
    compositions: tuple[Composition, ...]
    provenance: dict[str, str]


@dataclass(frozen=True)
class Drawn:
    """A cell: what it is, what it is named, by class and subtype, and whether it has no name."""

    label: str
    kind: str
    named: str
    subtype: str | None
    without: bool


def name_cells(bundle: Bundle, cells: Manifest) -> list[Drawn]:
    """The cells with what the model names them; `kind` is empty where the subtype is not known."""
    found, classes = [], bundle.card.classes
    predictions = Classifier(bundle).stream(cells.views())
    assert bundle.card.morphology is not None
    divided = {layer.name for layer in bundle.card.morphology.subtypes}
    for row, made in zip(cells.rows, predictions, strict=True):
        own = classes.find(row.label)
        if made.label is None or own is None:
            continue
        kind = name_subtype(row.subtype, own) if own.name in divided else own.name
        without = made.uncertainty is not None and made.uncertainty.review
        found.append(Drawn(own.name, kind, made.label, made.subtype, without))
    return found


def fit(bundle: Bundle, train: Sequence[ManifestRow], cells: Manifest) -> Bundle:
    """The bundle with layers for subtypes, and the confusion of classes on the same half."""
    fitted = fit_morphology(bundle, replace(cells, rows=(*train, *cells.rows)), "half")
    names, seen = fitted.card.classes.names, name_cells(fitted, cells)
    confusion = measure_confusion(
        "half",
        np.array([names.index(cell.label) for cell in seen]),
        np.array([names.index(cell.named) for cell in seen]),
        np.array([cell.without for cell in seen]),
        len(names),
    )
    return replace(fitted, card=replace(fitted.card, confusion=confusion))


@dataclass
class Records:
    """Of one composition: the intervals of each subtype, and the part of cells without a name."""

    raw: defaultdict[str, Record]
    corrected: defaultdict[str, Record]
    lost: list[float]


def simulate(
    bundle: Bundle, cells: Sequence[Drawn], name: str, records: Records, samples: int, seed: int
) -> None:
    """Counts samples that are drawn from the cells; a cell is drawn once, if there are enough."""
    random, card = np.random.default_rng(seed), bundle.card
    groups = {kind: [cell for cell in cells if cell.kind == kind] for kind in COMPOSITIONS[name]}
    shares = {kind: percent / 100 for kind, percent in COMPOSITIONS[name].items()}
    for _ in range(samples):
        drawn: list[Drawn] = []
        numbers = random.multinomial(CELLS, list(shares.values()))
        for group, number in zip(groups.values(), numbers, strict=True):
            chosen = random.choice(len(group), number, replace=number > len(group))
            drawn += [group[index] for index in chosen]
        named = [cell for cell in drawn if not cell.without]
        records.lost.append(1 - len(named) / len(drawn))
        counts = Counter(cell.named for cell in named)
        told = Counter(cell.subtype for cell in named if cell.subtype)
        for row in count_classes(nucleated_of(counts, card), subtypes_of(counts, told, card)):
            counted = interval_of(row.share)
            if row.part_of and row.name in shares:
                assert counted is not None
                assert row.corrected is not None
                records.raw[row.name].add(counted, shares[row.name])
                records.corrected[row.name].add(row.corrected, shares[row.name])


def summarise(name: str, records: Records) -> Composition:
    """How often the intervals of a composition held."""
    coverage = []
    for label, raw in records.raw.items():
        share, corrected = COMPOSITIONS[name][label] / 100, records.corrected[label]
        coverage.append(
            ClassCoverage(
                label=label,
                share=share,
                raw=wilson(sum(raw.held), len(raw.held)),
                corrected=wilson(sum(corrected.held), len(corrected.held)),
                in_theory=exact_coverage(share, CELLS),
                raw_bias=float(np.mean(raw.gaps)),
                corrected_bias=float(np.mean(corrected.gaps)),
                raw_width=float(np.mean(raw.widths)),
                corrected_width=float(np.mean(corrected.widths)),
            )
        )
    return Composition(name, tuple(coverage), float(np.mean(records.lost)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--samples", type=int, default=200, help="per composition")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    bundle = read_bundle()
    bundle = replace(bundle, fallback=None, card=replace(bundle.card, fallback_sha256=None))
    manifest = read_manifest(given.manifest, classes=bundle.card.classes)
    pool, train = select_unseen(manifest), manifest.select("train").rows
    first = np.random.default_rng(0).random(len(pool.rows)) < 0.5
    halves = [
        replace(pool, rows=tuple(row for row, is_in in zip(pool.rows, part, strict=True) if is_in))
        for part in (first, ~first)
    ]
    records = {name: Records(defaultdict(Record), defaultdict(Record), []) for name in COMPOSITIONS}
    kinds: Counter[str] = Counter()
    for number, (fitted_to, drawn_from) in enumerate((halves, halves[::-1])):
        fitted = fit(bundle, train, fitted_to)
        cells = name_cells(fitted, drawn_from)
        kinds.update(cell.kind for cell in cells if cell.kind)
        for seed, name in enumerate(COMPOSITIONS):
            simulate(fitted, cells, name, records[name], given.samples // 2, 10 * number + seed)
    compositions = tuple(summarise(name, found) for name, found in records.items())
    data = data_hash((row.sha256, row.label) for row in (*train, *pool.rows))
    facts = {"model": bundle.card.name, "model_sha256": bundle.card.model_sha256}
    result = SubtypeCoverage(
        CELLS, 2 * (given.samples // 2), dict(kinds), compositions, provenance(data) | facts
    )
    write_atomic(given.out, to_json(result))
    for composition in compositions:
        for found in composition.classes:
            print(
                f"{composition.name:12} {found.label:22} {100 * found.share:5.1f} %  raw "
                f"{100 * (found.raw.value or 0):5.1f}  corrected "
                f"{100 * (found.corrected.value or 0):5.1f}  width {found.raw_width:.1f} "
                f"{found.corrected_width:.1f}  bias {found.raw_bias:+.2f} "
                f"{found.corrected_bias:+.2f}"
            )


if __name__ == "__main__":
    main()
