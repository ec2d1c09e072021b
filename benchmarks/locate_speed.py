"""How fast fields are located: `python benchmarks/locate_speed.py OUT.json`, on a quiet machine.

Drawn fields of 640×480 and 2592×1944 pixels, from an opened image to located cells; the network
alone on onnxruntime and as torch computes it eagerly, on the same images in turns; two white cells
named beside; and the memory after each thousand of `--fields` fields.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from hemascope.data.augment import to_images
from hemascope.data.synthetic_fields import draw_field
from hemascope.files import write_atomic
from hemascope.inference.classifier import Classifier
from hemascope.models.locator import LocatorNetwork
from hemascope.preprocess import View
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.smear.locate import Locator

REPEATS = 30
NETWORK_SIZE = (224, 288)  # height and width of what the network sees of a small field
SIZES = {"640x480": (640, 480, 100.0), "2592x1944": (2592, 1944, 75.0)}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(works: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median time of each, in milliseconds, measured one after the other in every round."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work))
    return {name: round(1000 * median(values), 2) for name, values in times.items()}


def time_fields(locator: Locator, classifier: Classifier) -> dict[str, float]:
    works: dict[str, Callable[[], Any]] = {}
    for name, (width, height, diameter) in SIZES.items():
        image = draw_field(1, width, height, diameter, white=2).image
        works[f"{name} located"] = lambda image=image: locator.locate(image)

        def named(image: Any = image) -> None:
            field = locator.locate(image)
            scale = field.scale.um_per_pixel if field.scale else None
            cells = field.select("white")[:2]
            classifier.predict([View(image, scale, cell.centre) for cell in cells])

        works[f"{name} located, two white cells named"] = named
    return in_turns(works, REPEATS)


def time_network(locator: Locator) -> dict[str, float]:
    """The network alone: onnxruntime beside torch, in fp32 and in bf16."""
    width = int(locator.card.recipe.get("width", 32))
    network = LocatorNetwork(width=width).eval().to(memory_format=torch.channels_last)
    height, wide = NETWORK_SIZE
    pixels = np.random.default_rng(0).integers(0, 256, (1, height, wide, 3), dtype=np.uint8)
    images = to_images(torch.from_numpy(pixels))

    @torch.inference_mode()
    def eager(bf16: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            network(images)

    works: dict[str, Callable[[], Any]] = {
        "onnxruntime": lambda: locator.engine.maps(pixels),
        "torch eager, fp32": lambda: eager(False),
        "torch eager, bf16": lambda: eager(True),
    }
    return in_turns(works, 3 * REPEATS)


def measure_memory(locator: Locator, fields: int) -> dict[str, float]:
    """The most memory that the process has had, in megabytes, after so many fields."""
    images = [np.asarray(draw_field(seed, red_diameter=100).image) for seed in range(8)]
    memory = {}
    for number in range(1, fields + 1):
        locator.locate(images[number % len(images)])
        if number % max(1, fields // 10) == 0:
            memory[str(number)] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fields", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    locator = Locator.from_bundle(threads=asked.threads)
    classifier = Classifier(threads=asked.threads)
    result: dict[str, Any] = {
        "threads": asked.threads,
        "milliseconds": time_fields(locator, classifier),
        "network_milliseconds": time_network(locator),
        "memory_mb": measure_memory(locator, asked.fields),
        "command": "python benchmarks/locate_speed.py docs/evaluation/locate_speed.json",
        "provenance": provenance(),
    }
    print(result)
    write_atomic(asked.out, to_json(result))


if __name__ == "__main__":
    main()
