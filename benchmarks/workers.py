"""Images a second against the workers of a local Ray cluster.

    pip install 'hemascope[cluster]'
    python benchmarks/workers.py folder --out docs/evaluation/workers.json

The folder's images are named again and again. Each number of workers classifies few and many
images; the rate is of the difference, so that starting Ray and loading the model do not count, and
their time stands beside it.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hemascope.batch.cluster import classify_on_cluster
from hemascope.batch.cluster_inputs import Sources
from hemascope.batch.inputs import find_images
from hemascope.batch.shards import PART
from hemascope.files import write_atomic
from hemascope.provenance import provenance
from hemascope.serialization import to_json

FEW, MANY = 2 * PART, 4 * PART  # whole rounds for one and for two workers


@dataclass(frozen=True)
class Rate:
    """Of so many workers; `start_seconds` is what is spent before and after the images."""

    workers: int
    images_per_second: float
    start_seconds: float


@dataclass(frozen=True)
class Rates:
    few: int
    many: int
    rates: tuple[Rate, ...]
    provenance: dict[str, str]


def seconds(paths: list[str], number: int, workers: int) -> float:
    images = list(itertools.islice(itertools.cycle(paths), number))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        classify_on_cluster(f"{folder}/table", None, Sources(images, []), workers=workers)
        return time.perf_counter() - started


def rate(paths: list[str], workers: int) -> Rate:
    few, many = (seconds(paths, number, workers) for number in (FEW, MANY))
    found = (MANY - FEW) / (many - few)
    return Rate(workers, found, few - FEW / found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    paths = find_images([given.folder])
    found = tuple(rate(paths, number) for number in given.workers)
    write_atomic(given.out, to_json(Rates(FEW, MANY, found, provenance())))
    print(*found, sep="\n")


if __name__ == "__main__":
    main()
