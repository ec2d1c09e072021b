"""How wide a pixel is of PBC and of jiangxi: `python benchmarks/pixel_width.py DATA`.

DATA is the folder with pbc/ and jiangxi/ in it. PBC is measured by its red cells, which are taken
to be 7.2 µm across; jiangxi, whose images show no whole ones, by its lymphocytes. Only images of
PBC's split `pool` are read, and no model is asked. Decision 5 has the result.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from hemascope.arrays import BoolArray, FloatArray
from hemascope.data.external import RED_CELL_MICRONS
from hemascope.data.manifest import read_manifest
from hemascope.metrics.appearance import optical_density
from hemascope.preprocess import ground_colour

IMAGES = 300
NUCLEUS = 0.45  # optical density of green light above which a shape is no red cell


def density_of(path: Path) -> FloatArray:
    image = Image.open(path).convert("RGB")
    return optical_density(np.asarray(image), ground_colour(image))


def free_cells(path: Path) -> tuple[list[float], list[float]]:
    """Equivalent diameters in pixels of the red and of the nucleated cells of an image.

    Of those that lie free and whole, and are round: what is darker than the ground to green light,
    holes filled. Platelets are smaller.
    """
    green = ndimage.gaussian_filter(density_of(path)[:, :, 1], 1.5)
    shapes = ndimage.binary_opening(ndimage.binary_fill_holes(green > 0.05), iterations=3)
    labels, _ = ndimage.label(shapes)
    red, nucleated = [], []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        shape = labels[place] == number
        height, width = shape.shape
        free = all(
            part.start > 0 and part.stop < side
            for part, side in zip(place, labels.shape, strict=True)
        )
        is_round = 0.8 < height / width < 1.25
        is_round &= abs(shape.sum() / (np.pi / 4 * height * width) - 1) < 0.08
        if free and is_round and shape.sum() > 800:
            cells = red if green[place][shape].max() < NUCLEUS else nucleated
            cells.append(diameter(shape))
    return red, nucleated


def diameter(shape: BoolArray) -> float:
    return float(np.sqrt(4 * shape.sum() / np.pi))


def said(name: str, values: list[float]) -> float:
    low, middle, high = np.percentile(values, (25, 50, 75)).tolist()
    print(f"{name}: {middle:.1f} px ({low:.1f} - {high:.1f}), n = {len(values)}")
    return middle


def main(data: Path) -> None:
    pool = read_manifest(data / "pbc" / "splits.csv").select("pool")
    chosen = np.random.default_rng(0).permutation(len(pool.rows))[:IMAGES]
    reds = [free_cells(pool.root / pool.rows[k].path)[0] for k in chosen]
    pbc = RED_CELL_MICRONS / said("PBC, red cells", [d for one in reds for d in one])
    lymphocytes = [row for row in pool.rows if row.label == "lymphocyte"][:IMAGES]
    whites = [free_cells(pool.root / row.path)[1] for row in lymphocytes]
    microns = pbc * said("PBC, lymphocytes", [d for one in whites for d in one])
    with (data / "jiangxi" / "labels.csv").open(encoding="utf-8") as file:
        masks = [row["mask"] for row in csv.DictReader(file) if row["label"] == "lymphocyte"]
    outlines = [np.asarray(Image.open(data / "jiangxi" / m).convert("L")) > 50 for m in masks]
    jiangxi = microns / said("jiangxi, lymphocytes by their masks", [*map(diameter, outlines)])
    print(f"PBC {pbc:.4f} µm a pixel, its lymphocytes {microns:.2f} µm; jiangxi {jiangxi:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
