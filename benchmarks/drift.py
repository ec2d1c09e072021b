"""How often `survey --against` gives an alarm, with a change and without one.

    python benchmarks/drift.py cells.npz --out docs/evaluation/drift.json

`cells.npz` comes from pack_laboratories.py. Again and again up to ten cells of each class of a
laboratory stand for those that a bundle was adapted to, and 100 others for a new batch, as it is or
changed: stain weaker or stronger by 30 %, focus off by 1 µm, the lamp 15 % darker. A focus
off by 1 µm at a numerical aperture of 0.9 in oil blurs a point to a disc of 0.74 µm radius, which a
Gaussian of half that stands for. Cells of a class are compared by their labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from hemascope.arrays import ImageArray
from hemascope.files import write_atomic
from hemascope.metrics.intervals import wilson
from hemascope.provenance import provenance
from hemascope.serialization import to_json
from hemascope.uncertainty.drift import detect_drift
from hemascope.uncertainty.image_style import measure_style
from leave_one_out import SIZE, Cells
from left_out_cells import images_of
from several_laboratories import SPEC

BATCH, EACH, HOME = 100, 10, 600
BLUR = 0.37 * SIZE / (SPEC.microns or 1)  # standard deviation in pixels


def restain(image: ImageArray, strength: float) -> ImageArray:
    """An image whose optical density over its ground is multiplied."""
    ground = np.percentile(image, 90, axis=(0, 1))
    through = np.maximum(image, 1) / np.maximum(ground, 1)
    return np.clip(ground * through**strength, 0, 255).round().astype(np.uint8)


def blur(image: ImageArray) -> ImageArray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR)))


CHANGES: dict[str, Callable[[ImageArray], ImageArray]] = {
    "none": lambda image: image,
    "stain weaker by 30 %": lambda image: restain(image, 0.7),
    "stain stronger by 30 %": lambda image: restain(image, 1.3),
    "focus off by 1 µm": blur,
    "lamp 15 % darker": lambda image: (0.85 * image).astype(np.uint8),
}


def of_laboratory(images: ImageArray, targets: np.ndarray, repetitions: int) -> Any:
    """The share of alarms for each change."""
    measures = {
        name: measure_style(np.stack([change(image) for image in images]))
        for name, change in CHANGES.items()
    }
    alarms = dict.fromkeys(CHANGES, 0)
    for seed in range(repetitions):
        order = np.random.default_rng(seed).permutation(len(images))
        groups = [order[targets[order] == k] for k in np.unique(targets)]
        before = np.concatenate([group[: min(EACH, len(group) // 2)] for group in groups])
        after = order[~np.isin(order, before)][:BATCH]
        for name, values in measures.items():
            found = detect_drift(
                measures["none"][before], targets[before], values[after], targets[after]
            )
            alarms[name] += found.alarm
    return {name: wilson(count, repetitions) for name, count in alarms.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args()
    cells = Cells(options.cells)
    results = {}
    for name in ("pbc", "jiangxi", "bccd", "munich"):
        chosen = (cells.laboratories == name) & (cells.targets >= 0)
        chosen &= cells.home if name == "pbc" else True
        places = np.random.default_rng(0).permutation(np.flatnonzero(chosen))[:HOME]
        chosen = np.isin(np.arange(len(chosen)), places)
        images = images_of(cells, chosen)
        results[name] = of_laboratory(images, cells.targets[chosen], options.repetitions)
        shares = {change: share.value for change, share in results[name].items()}
        print(name, len(images), shares, flush=True)
    write_atomic(options.out, to_json({"laboratories": results, "provenance": provenance()}))


if __name__ == "__main__":
    main()
