"""Training speed with freed memory kept by the process, against the C library's default.

Both train `deep_efficientnet` with the study's recipe on the same drawn cells, each in a process
of its own and on one thread, in turns, so that a drift of the machine's speed meets both; the ratio
is by pairs of turns. Speed is by processor time, the system's included, so that other programs that
run beside it matter little.

    pip install 'hemascope[train]'
    python benchmarks/kept_memory.py --out docs/evaluation/kept_memory.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from hemascope.classes import BLOOD_CELLS
from hemascope.data.manifest import manifest_from_folder
from hemascope.data.synthetic import draw_folder
from hemascope.files import write_atomic
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.training.allocator import keep_memory
from hemascope.training.images import prepare_data
from hemascope.training.loop import Run
from hemascope.training.recipe import Recipe

BATCH = 32


@dataclass(frozen=True)
class Gain:
    """At one image size: images per second of processor time, in the median of the turns, and the
    ratio kept : default by turns."""

    size: int
    default: float
    kept: float
    ratio: float
    least: float
    most: float
    turns: int


def train_in_turns(kept: bool, folder: Path, size: int, pipe: Connection) -> None:
    """Trains an epoch whenever asked, and says how much processor time it took."""
    torch.set_num_threads(1)
    if kept:
        keep_memory()
    recipe = Recipe(image_size=size, batch_size=BATCH, val_fraction=0.0)
    run = Run(recipe, prepare_data(recipe, manifest_from_folder(folder), folder.parent / "cache"))
    while pipe.recv():
        started = time.process_time()
        run.train_epoch(0, None)
        pipe.send(time.process_time() - started)


def measure(folder: Path, size: int, images: int, turns: int) -> Gain:
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for kept in (False, True):
        pipes[kept], theirs = context.Pipe()
        work = (kept, folder, size, theirs)
        context.Process(target=train_in_turns, args=work, daemon=True).start()
    speeds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(turns + 1):
        for kept, pipe in pipes.items():
            pipe.send(True)
            seconds = pipe.recv()
            if turn > 0:  # the first warms up
                speeds[kept].append(images / seconds)
    for pipe in pipes.values():
        pipe.send(False)
    ratios = [kept / default for default, kept in zip(*speeds.values(), strict=True)]
    default, kept_speed = (statistics.median(speeds[kept]) for kept in (False, True))
    middle = statistics.median(ratios)
    return Gain(size, default, kept_speed, middle, min(ratios), max(ratios), turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--per-class", type=int, default=12, help="drawn cells per class")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    images = given.per_class * len(BLOOD_CELLS) // BATCH * BATCH
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "cells")
        draw_folder(folder, given.per_class)
        gains = [measure(folder, size, images, given.turns) for size in given.sizes]
    facts = provenance() | {"torch": str(torch.__version__)}
    found = to_json({"sizes": gains, "provenance": facts})
    print(found.decode())
    if given.out is not None:
        write_atomic(given.out, found)


if __name__ == "__main__":
    main()
