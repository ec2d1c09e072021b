"""How fast a model is from files to predictions, beside the plain way of doing the same."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemascope.arrays import ProgressCallback
from hemascope.batch.local import classify_to
from hemascope.inference.classifier import Classifier
from hemascope.models.plain_pipeline import BATCH, plain_pipelines
from hemascope.provenance import provenance

Way = Callable[[Sequence[str]], object]


OURS = "hemascope classify"


ONE_BY_ONE = 200  # images, and as many again before, to warm up


@dataclass(frozen=True)
class Throughput:
    """Images a second from files, turn by turn; `times` is ours by this one's, turn by turn."""

    name: str
    images_per_second: tuple[float, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class Latency:
    """Milliseconds from one image's path to its prediction, warm."""

    name: str
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Benchmark:
    """What was measured on one machine in one go.

    `images` files were read in each turn; `threads` is how many processors were used.
    `start_seconds` is that of `hemascope classify` on one image, and `import_seconds` that of
    `import hemascope`, beyond Python's own; medians of five.
    """

    model: str
    images: int
    threads: int
    throughput: tuple[Throughput, ...]
    latency: tuple[Latency, ...]
    start_seconds: float
    import_seconds: float
    provenance: dict[str, str]


def benchmark(
    classifier: Classifier,
    paths: Sequence[str],
    turns: int = 3,
    progress: ProgressCallback | None = None,
) -> Benchmark:
    """Measures in turns, so that whatever else the machine does strikes all ways alike.

    The plain way is Pillow, torchvision's transforms, a DataLoader with two workers and torch,
    uncompiled and in single precision, in batches of 32. Needs torchvision. Raises ValueError for
    a model whose architecture has no single network.
    """
    card = classifier.card
    plain = plain_pipelines(card.architecture, len(card.classes), card.input.size)
    ways: dict[str, Way] = {OURS: lambda files: _classify_files(classifier, files)}
    ways |= {name: pipeline.classify_all for name, pipeline in plain.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(paths[: 4 * BATCH])  # warm up
    for turn in range(turns):
        for index, (name, way) in enumerate(ways.items()):
            started = time.perf_counter()
            way(paths)
            rates[name].append(len(paths) / (time.perf_counter() - started))
            if progress is not None:
                progress(turn * len(ways) + index + 1, turns * len(ways))
    single = list(itertools.islice(itertools.cycle(paths), 2 * ONE_BY_ONE))
    return Benchmark(
        model=card.name,
        images=len(paths),
        threads=classifier.threads,
        throughput=tuple(_throughput(name, rates) for name in rates),
        latency=(
            _latency(OURS, classifier.predict, single),
            *(_latency(name, pipeline.classify_one, single) for name, pipeline in plain.items()),
        ),
        start_seconds=_seconds("-m", "hemascope", "classify", paths[0], "--out", "{out}/p.csv"),
        import_seconds=_seconds("-c", "import hemascope") - _seconds("-c", "pass"),
        provenance=provenance() | {"model_sha256": card.model_sha256},
    )


def _throughput(name: str, rates: Mapping[str, Sequence[float]]) -> Throughput:
    """Images per second of one way, and how many times faster ours is, by turns."""
    times = (ours / rate for ours, rate in zip(rates[OURS], rates[name], strict=True))
    return Throughput(name, tuple(rates[name]), tuple(times))


def _classify_files(classifier: Classifier, paths: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        classify_to(Path(folder) / "p.csv", classifier, list(paths))


def _latency(name: str, classify_one: Callable[[str], object], paths: Sequence[str]) -> Latency:
    """Of the second half of the paths; the first warms up."""
    seconds = []
    for path in paths:
        started = time.perf_counter()
        classify_one(path)
        seconds.append(time.perf_counter() - started)
    p50, p95, p99 = np.percentile(1000 * np.array(seconds[len(paths) // 2 :]), [50, 95, 99])
    return Latency(name, float(p50), float(p95), float(p99))


def _seconds(*words: str, times: int = 5) -> float:
    """Median time of a Python process; `{out}` in a word is an empty folder."""
    timings = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *(word.replace("{out}", folder) for word in words)]
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            timings.append(time.perf_counter() - started)
    return statistics.median(timings)
