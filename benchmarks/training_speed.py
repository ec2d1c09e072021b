"""Training speed: Hemascope's loop against the plain way of writing it, in one run.

Both train `deep_efficientnet` with the full augmentation, batch 32, on the same drawn cells, at
one image size after the other. The plain way: JPEG files, PIL and torchvision transforms in a
DataLoader, single precision, contiguous memory. Hemascope: frames from its cache, augmentation of
whole batches, bfloat16 where that is faster, channels-last; with --compile, its network compiled.

    pip install 'hemascope[train]' torchvision
    python benchmarks/training_speed.py --out docs/evaluation/training_speed.json

Each is a process of its own, and they take turns, so that a drift of the machine's speed meets
both; the ratio is by pairs of turns.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from hemascope.classes import BLOOD_CELLS
from hemascope.data.manifest import manifest_from_folder
from hemascope.data.synthetic import draw_cell
from hemascope.files import write_atomic
from hemascope.models import create_model
from hemascope.models.network import IMAGENET_MEAN, IMAGENET_STD
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.training.images import prepare_data
from hemascope.training.loop import Run
from hemascope.training.recipe import Recipe


@dataclass(frozen=True)
class Speed:
    """At one image size: median images a second of both, and the ratio by pairs of turns."""

    size: int
    plain: float
    hemascope: float
    ratio: float
    least: float
    most: float
    turns: int


def draw_jpegs(folder: Path, per_class: int) -> None:
    for label in BLOOD_CELLS.names:
        (folder / label).mkdir(parents=True)
        for seed in range(per_class):
            draw_cell(label, seed).save(folder / label / f"{label}_{seed}.jpg", quality=92)


def plain_epoch(folder: Path, size: int, batch: int) -> Callable[[], None]:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [
        transforms.Resize((size, size)),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.RandomRotation(30),
        transforms.ColorJitter(0.2, 0.2, 0.2, 0.1),
        transforms.RandomAffine(0, translate=(0.1, 0.1), scale=(0.9, 1.1), shear=5),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    images = ImageFolder(str(folder), transforms.Compose(steps))
    loader = DataLoader(images, batch, shuffle=True, drop_last=True, num_workers=0)
    model = create_model("deep_efficientnet")
    model.mean.zero_()  # the transforms have normalised already
    model.std.fill_(1)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)

    def epoch() -> None:
        model.train()
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return epoch


def our_epoch(folder: Path, cache: Path, recipe: Recipe) -> Callable[[], None]:
    run = Run(recipe, prepare_data(recipe, manifest_from_folder(folder), cache))

    def epoch() -> None:
        run.train_epoch(0, None)

    return epoch


def work(way: str, folder: Path, size: int, given: argparse.Namespace, pipe: Connection) -> None:
    """One way, in a process of its own: trains an epoch whenever asked, and says how long."""
    if way == "plain":
        epoch = plain_epoch(folder, size, given.batch)
    else:
        cache = folder.parent / "cache"
        recipe = Recipe(
            image_size=size, batch_size=given.batch, val_fraction=0.0, compile=given.compile
        )
        epoch = our_epoch(folder, cache, recipe)
    while pipe.recv():
        started = time.perf_counter()
        epoch()
        pipe.send(time.perf_counter() - started)


def at_size(size: int, given: argparse.Namespace) -> Speed:
    context = multiprocessing.get_context("spawn")
    speeds: dict[str, list[float]] = {"plain": [], "hemascope": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "cells")
        draw_jpegs(folder, given.per_class)
        images = given.per_class * len(BLOOD_CELLS) // given.batch * given.batch
        pipes = {}
        for way in speeds:
            pipes[way], theirs = context.Pipe()
            works = (way, folder, size, given, theirs)
            context.Process(target=work, args=works, daemon=True).start()
        for turn in range(given.turns + 1):
            for way, pipe in pipes.items():
                pipe.send(True)
                seconds = pipe.recv()
                if turn > 0:  # the first warms up
                    speeds[way].append(images / seconds)
        for pipe in pipes.values():
            pipe.send(False)
    ratios = [
        ours / plain for ours, plain in zip(speeds["hemascope"], speeds["plain"], strict=True)
    ]
    return Speed(
        size,
        statistics.median(speeds["plain"]),
        statistics.median(speeds["hemascope"]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        given.turns,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128, 224])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--per-class", type=int, default=16, help="drawn cells a class")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compile Hemascope's network")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = []
    for size in given.sizes:
        found.append(at_size(size, given))
        print(found[-1])
    if given.out is not None:
        facts = provenance() | {"torch": str(torch.__version__)}
        facts["threads"] = str(torch.get_num_threads())
        write_atomic(given.out, to_json({"sizes": found, "provenance": facts}))


if __name__ == "__main__":
    main()
