"""What a prediction's judgement of itself costs: sets, out-of-distribution score and flags.

The same images of one split, with the judgement and without it in turns, one at a time and in
batches of eight, one thread each; of images unlike the training cells only the first network's
judgement counts.

    python benchmarks/flags.py pbc/splits.csv --out docs/evaluation/flags.json
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from hemascope.bundle.bundle import read_bundle
from hemascope.data.manifest import read_manifest
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.provenance import provenance
from hemascope.serialization import to_json

TURNS = 15


@dataclass(frozen=True)
class Cost:
    """Of an image, medians of the turns: milliseconds from file to Prediction, and their share."""

    milliseconds: float
    without: float
    share: float
    low: float  # least and greatest share of a turn
    high: float


@dataclass(frozen=True)
class Costs:
    images: int
    alone: Cost
    in_batches_of_eight: Cost
    provenance: dict[str, str]


def seconds(classifier: Classifier, batch: tuple[str, ...]) -> float:
    start = time.perf_counter()
    classifier.predict(batch)
    return time.perf_counter() - start


def cost(judging: Classifier, plain: Classifier, paths: list[str], size: int) -> Cost:
    groups = [tuple(paths[at : at + size]) for at in range(0, len(paths) - size + 1, size)]
    turns = []
    for turn in range(TURNS + 1):  # the first warms up
        order = (judging, plain) if turn % 2 else (plain, judging)
        pairs = [
            {classifier: seconds(classifier, group) for classifier in order} for group in groups
        ]
        turns.append([median(pair[which] for pair in pairs) / size for which in (judging, plain)])
    shares = [1 - without / whole for whole, without in turns[1:]]
    whole, without = (1000 * median(column) for column in zip(*turns[1:], strict=True))
    return Cost(whole, without, median(shares), min(shares), max(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    bundle = replace(read_bundle(), elsewhere=None)
    judging = Classifier(bundle, threads=1)
    plain = Classifier(replace(bundle, card=replace(bundle.card, trust=None)), threads=1)
    manifest = read_manifest(given.manifest).select(given.split)
    every = max(1, len(manifest.rows) // given.images)
    paths = [str(manifest.root / row.path) for row in manifest.rows[::every]][: given.images]
    found = Costs(
        len(paths),
        cost(judging, plain, paths, 1),
        cost(judging, plain, paths, 8),
        provenance() | {"model_sha256": bundle.card.model_sha256},
    )
    write_atomic(given.out, to_json(found))
    print(to_json(found).decode())


if __name__ == "__main__":
    main()
