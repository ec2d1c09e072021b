"""Whether class activation maps show what the answers rest on, and where.

Faithfulness on images of split `test`, the same number of each class: areas under the deletion
and insertion curves of the map that `explain` shows, the mean of eight looks; of that of one look,
of a blob in the middle and of noise; and how often the first is better. Where: whether the map's
peak lies in the cell, on Jiangxi's masks, among the cells that are named right among all classes.

    pip install 'hemascope[evaluate]'
    python benchmarks/explanation.py pbc/splits.csv jiangxi --out docs/evaluation/explanation.json
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.bundle.classifier import Classifier
from hemascope.bundle.explain import enlarged
from hemascope.data.manifest import read_manifest
from hemascope.data.sites import read_site
from hemascope.preprocess import decode, ground_colour
from hemascope.provenance import provenance
from hemascope.results import Estimate, Proportion, to_json, written_whole
from hemascope.scoring.calibration import softmax
from hemascope.scoring.faithfulness import deletion, insertion
from hemascope.scoring.statistics import bootstrap, wilson

PER_CLASS = 25


@dataclass(frozen=True)
class Faithfulness:
    """Mean areas by kind of map, and how often the class map's is better than another's."""

    deletion: dict[str, Estimate]
    insertion: dict[str, Estimate]
    deletion_better_than: dict[str, Proportion]
    insertion_better_than: dict[str, Proportion]


@dataclass(frozen=True)
class Explanation:
    """All that is measured; `peak_in_cell` is of Jiangxi's cells that are named right."""

    faithfulness: Faithfulness
    peak_in_cell: Proportion
    middle_in_cell: Proportion
    provenance: dict[str, str]


def maps_of(
    one: NDArray[np.floating], eight: NDArray[np.floating], random: np.random.Generator
) -> dict[str, NDArray[np.floating]]:
    """The class's map of one look (S,S) and of eight, a blob in the middle, and coarse noise."""
    size = len(one)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    noise = random.random((8, 8)).astype(np.float32)
    return {
        "class map": eight,
        "class map of one look": one,
        "blob": np.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2)),
        "noise": enlarged(noise, size),
    }


def faithfulness(classifier: Classifier, paths: list[str]) -> Faithfulness:
    spec, names = classifier.card.input, classifier.card.classes
    random = np.random.default_rng(0)
    looks = (classifier, Classifier(tta=True))
    areas: dict[str, list[tuple[float, float]]] = {}
    for path in paths:
        answers = [look.predict(path, class_maps=True)[0] for look in looks]
        named = names.index(str(answers[0].label))
        ours = [
            enlarged(answer.class_map[named], spec.size, look.map_offset(answer))
            for look, answer in zip(looks, answers, strict=True)
            if answer.class_map is not None
        ]
        image = spec.load(path)
        ground = np.empty_like(image)
        ground[:] = ground_colour(Image.fromarray(image))

        def probability(images: NDArray[np.uint8], named: int = named) -> NDArray[np.float64]:
            logits = classifier.scores(images).logits
            return softmax(logits, classifier.card.temperature)[:, named]

        for kind, weights in maps_of(ours[0], ours[1], random).items():
            pair = (
                deletion(image, ground, weights, probability),
                insertion(image, ground, weights, probability),
            )
            areas.setdefault(kind, []).append(pair)
    table = {kind: np.array(pairs) for kind, pairs in areas.items()}
    best, n = table["class map"], len(paths)
    others = {kind: found for kind, found in table.items() if kind != "class map"}
    return Faithfulness(
        {kind: mean(found[:, 0]) for kind, found in table.items()},
        {kind: mean(found[:, 1]) for kind, found in table.items()},
        {k: wilson(int((best[:, 0] < v[:, 0]).sum()), n) for k, v in others.items()},
        {k: wilson(int((best[:, 1] > v[:, 1]).sum()), n) for k, v in others.items()},
    )


def mean(values: NDArray[np.float64]) -> Estimate:
    (found,) = bootstrap(
        lambda counts: (counts @ values / counts.sum(axis=1))[:, None], len(values)
    )
    return found


def localisation(classifier: Classifier, folder: Path) -> tuple[Proportion, Proportion]:
    """How often the peak lies in the mask; and, to compare, the picture's middle."""
    spec, names = classifier.card.input, classifier.card.classes
    with (folder / "labels.csv").open() as file:
        masks = {row["path"]: folder / row["mask"] for row in csv.DictReader(file)}
    cells = read_site("jiangxi", folder)
    inside = middle = right = 0
    answers = classifier.stream([cell.view for cell in cells], class_maps=True)
    for cell, answer in zip(cells, answers, strict=True):
        if answer.label != cell.label or answer.class_map is None:
            continue
        right += 1
        mask = np.asarray(Image.open(masks[cell.path]).convert("L")) > 50
        height, width = mask.shape
        offset = classifier.map_offset(answer)
        weights = enlarged(answer.class_map[names.index(cell.label)], spec.size, offset)
        row, column = np.unravel_index(int(weights.argmax()), weights.shape)
        scale = spec.side(decode(cell.view.image), cell.view.um_per_pixel) / spec.size
        y = int(np.floor(height / 2 + (row + 0.5 - spec.size / 2) * scale))
        x = int(np.floor(width / 2 + (column + 0.5 - spec.size / 2) * scale))
        inside += bool(0 <= y < height and 0 <= x < width and mask[y, x])
        middle += bool(mask[height // 2, width // 2])
    return wilson(inside, right), wilson(middle, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("jiangxi", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    classifier = Classifier()
    manifest = read_manifest(given.manifest).select("test")
    by_class = groupby(sorted(manifest.rows, key=lambda row: row.label), lambda row: row.label)
    rows = [row for _, group in by_class for row in list(group)[:PER_CLASS]]
    peak, middle = localisation(Classifier(tta=True), given.jiangxi)
    found = Explanation(
        faithfulness(classifier, [str(manifest.root / row.path) for row in rows]),
        peak,
        middle,
        provenance() | {"model_sha256": classifier.card.model_sha256},
    )
    with written_whole(given.out) as temporary:
        temporary.write_bytes(to_json(found))
    print(to_json(found).decode())


if __name__ == "__main__":
    main()
