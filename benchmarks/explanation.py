"""Whether the maps of `explain` show what the predictions rest on, and where.

Faithfulness on images of one split, the same number of each class: areas under the deletion and
insertion curves of the class activation map that `explain` shows, averaged over the eight
symmetries; of that of one view; of a blob in the middle; of noise; and of the mask that
`explain --search-mask` finds. The search optimises these very curves on the same image, so the
mask's areas are what it reached, not an independent measure; the result names it so. Then the
mask's areas less each other's, image by image, and how often the mask is better. Where: whether the
peaks lie in the cell, on Jiangxi's masks, among the cells whose label is predicted.

    pip install 'hemascope[evaluate]'
    python benchmarks/explanation.py pbc/splits.csv jiangxi --out docs/evaluation/explanation.json
"""

from __future__ import annotations

import argparse
import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from hemascope.arrays import AnyFloatArray, BoolArray, FloatArray, ImageArray
from hemascope.data.external import read_site
from hemascope.data.manifest import ManifestRow, read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.inference.explain import average_map, resize_map, search_map
from hemascope.metrics.faithfulness import STEPS, deletion, insertion
from hemascope.metrics.intervals import bootstrap, wilson
from hemascope.predictions import Prediction
from hemascope.preprocess import decode, ground_colour
from hemascope.processors import count_processors
from hemascope.provenance import provenance
from hemascope.records import Estimate, Proportion
from hemascope.serialization import to_json
from hemascope.uncertainty.temperature import softmax

PER_CLASS = 25
SEARCHED = "searched mask"
Areas = dict[str, tuple[float, float]]  # by kind of map: under the deletion curve, the insertion's


@dataclass(frozen=True)
class Curves:
    """Mean areas by kind of map; the mask's less another's by image; how often it is better."""

    area: dict[str, Estimate]
    searched_less: dict[str, Estimate]
    searched_better_than: dict[str, Proportion]


@dataclass(frozen=True)
class Explanation:
    """All that is measured; the peaks are those of Jiangxi's cells that are named right."""

    optimised_on_these_curves: tuple[str, ...]
    split: str
    steps: int
    deletion: Curves
    insertion: Curves
    peak_in_cell: dict[str, Proportion]
    provenance: dict[str, str]


def maps_of(
    classifier: Classifier, image: ImageArray, prediction: Prediction, noise: AnyFloatArray
) -> dict[str, AnyFloatArray]:
    """Every kind of map of the named class, (S,S)."""
    size, label = len(image), str(prediction.label)
    model = classifier.model_for(prediction)
    of = model.card.classes.index(label)
    one = model.outputs(image[None])
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return {
        SEARCHED: search_map(classifier, image, prediction, label),
        "class map": average_map(classifier, image, prediction, label),
        "class map of one view": resize_map(one.class_map[0, of], size, model.card.map_offset),
        "blob": np.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2)),
        "noise": resize_map(noise.astype(np.float32), size),
    }


def areas_of(classifier: Classifier, numbered: tuple[int, str]) -> Areas:
    """Both areas of every kind of map, of one image; its number seeds the noise."""
    number, path = numbered
    (prediction,) = classifier.predict(path)
    model = classifier.model_for(prediction)
    image = classifier.card.input.load(path)
    of = model.card.classes.index(str(prediction.label))
    ground = np.empty_like(image)
    ground[:] = ground_colour(Image.fromarray(image))

    def probability(images: ImageArray) -> FloatArray:
        return softmax(model.outputs(images).logits, model.card.temperature)[:, of]

    noise = np.random.default_rng(number).random((8, 8))
    return {
        kind: (
            deletion(image, ground, weights, probability),
            insertion(image, ground, weights, probability),
        )
        for kind, weights in maps_of(classifier, image, prediction, noise).items()
    }


def curves(areas: dict[str, FloatArray], sign: int) -> Curves:
    """Of the areas (N,) by kind; `sign` is 1 where a greater one is better, else -1."""
    searched = areas[SEARCHED]
    gaps = {kind: searched - found for kind, found in areas.items() if kind != SEARCHED}
    return Curves(
        {kind: mean(found) for kind, found in areas.items()},
        {kind: mean(gap) for kind, gap in gaps.items()},
        {kind: wilson(int((sign * gap > 0).sum()), len(gap)) for kind, gap in gaps.items()},
    )


def mean(values: FloatArray) -> Estimate:
    (found,) = bootstrap(
        lambda counts: (counts @ values / counts.sum(axis=1))[:, None], len(values)
    )
    return found


def localisation(classifier: Classifier, folder: Path) -> dict[str, Proportion]:
    """How often the peak of a map lies in the mask; and, to compare, the image's middle."""
    with (folder / "labels.csv").open() as file:
        masks = {row["path"]: folder / row["mask"] for row in csv.DictReader(file)}
    cells = read_site("jiangxi", folder)
    predictions = classifier.stream(cells.views())
    right = [
        (row, prediction)
        for row, prediction in zip(cells.rows, predictions, strict=True)
        if prediction.label == row.label
    ]

    def peaks(named: tuple[ManifestRow, Prediction]) -> dict[str, bool]:
        row, prediction = named
        view = row.view(cells.root)
        image = classifier.card.input.load(view)
        shown = {
            SEARCHED: search_map(classifier, image, prediction, row.label),
            "class map": average_map(classifier, image, prediction, row.label),
        }
        mask = np.asarray(Image.open(masks[row.path]).convert("L")) > 50
        spec = classifier.card.input
        scale = spec.side(decode(view.image), view.um_per_pixel) / spec.size
        found = {kind: peak_lies_in(mask, weights, scale) for kind, weights in shown.items()}
        return found | {"middle": bool(mask[mask.shape[0] // 2, mask.shape[1] // 2])}

    with ThreadPoolExecutor(count_processors()) as pool:
        each = list(pool.map(peaks, right))
    return {kind: wilson(sum(found[kind] for found in each), len(each)) for kind in each[0]}


def peak_lies_in(mask: BoolArray, weights: AnyFloatArray, scale: float) -> bool:
    """Of a map (S,S) over the middle of a mask, whose pixels are `scale` times smaller."""
    peak = np.array(np.unravel_index(int(weights.argmax()), weights.shape))
    middle = np.array(mask.shape) / 2
    y, x = np.floor(middle + (peak + 0.5 - len(weights) / 2) * scale).astype(int)
    return bool(0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("jiangxi", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    classifier = Classifier(threads=1)  # the images are measured side by side instead
    manifest = read_manifest(given.manifest).select(given.split)
    by_class = groupby(sorted(manifest.rows, key=lambda row: row.label), lambda row: row.label)
    rows = [row for _, group in by_class for row in list(group)[:PER_CLASS]]
    paths = [str(manifest.root / row.path) for row in rows]
    with ThreadPoolExecutor(count_processors()) as pool:
        each = list(pool.map(partial(areas_of, classifier), enumerate(paths)))
    taken, given_places = (
        {kind: np.array([areas[kind][way] for areas in each]) for kind in each[0]} for way in (0, 1)
    )
    found = Explanation(
        (SEARCHED,),
        given.split,
        STEPS,
        curves(taken, -1),
        curves(given_places, 1),
        localisation(classifier, given.jiangxi),
        provenance() | {"model_sha256": classifier.card.model_sha256},
    )
    write_atomic(given.out, to_json(found))
    print(to_json(found).decode())


if __name__ == "__main__":
    main()
