"""Training speed in bf16 and in fp32, by which the precision `auto` is chosen.

Each trains the same network on the same drawn cells in a process of its own; they take turns, so
that a drift of the machine's speed meets both, and the ratio is by pairs of turns.

    python benchmarks/precisions.py
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/precisions.py   # as on a processor with AVX2 only
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import get_args, get_type_hints

from hemascope.classes import BLOOD_CELLS
from hemascope.training.machine import has_native_bf16
from hemascope.training.recipe import Recipe
from training_speed import draw_jpegs, our_epoch

PRECISIONS = ("bf16", "fp32")


def work(folder: Path, recipe: Recipe, pipe: Connection) -> None:
    """Trains an epoch whenever asked, and says how many seconds it took."""
    epoch = our_epoch(folder, folder.parent / "cache", recipe)
    while pipe.recv():
        started = time.perf_counter()
        epoch()
        pipe.send(time.perf_counter() - started)


def measure(given: argparse.Namespace) -> dict[str, list[float]]:
    """Images a second by precision, in each turn after the first, which warms up."""
    context = multiprocessing.get_context("spawn")
    speeds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "cells")
        draw_jpegs(folder, given.per_class)
        images = given.per_class * len(BLOOD_CELLS) // given.batch * given.batch
        pipes = {}
        for precision in PRECISIONS:
            pipes[precision], theirs = context.Pipe()
            recipe = Recipe(
                model=given.model,
                image_size=given.size,
                batch_size=given.batch,
                val_fraction=0.0,
                precision=precision,
            )
            context.Process(target=work, args=(folder, recipe, theirs), daemon=True).start()
        for turn in range(given.turns + 1):
            for precision, pipe in pipes.items():
                pipe.send(True)
                seconds = pipe.recv()
                if turn > 0:
                    speeds[precision].append(images / seconds)
        for pipe in pipes.values():
            pipe.send(False)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = get_args(get_type_hints(Recipe)["model"])
    parser.add_argument("--model", choices=models, default="efficientnet_mini")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--per-class", type=int, default=8, help="drawn cells a class")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    speeds = measure(given)
    for precision, values in speeds.items():
        print(f"{precision}: {statistics.median(values):.1f} images/s")
    ratios = [ours / other for ours, other in zip(*speeds.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})")
    print(f"auto becomes {'bf16' if has_native_bf16() else 'fp32'}")


if __name__ == "__main__":
    main()
