"""Placeholder until the drawing is done; to be replaced whole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hemascope.classes import BLOOD_CELLS


def draw_cell(label: str, seed: int, size: int = 360) -> Image.Image:
    rng = np.random.default_rng((BLOOD_CELLS.index(label), seed))
    return Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))


def draw_folder(
    folder: Path,
    per_class: int,
    seed: int = 0,
    classes: Sequence[str] = BLOOD_CELLS.names,
    size: int = 360,
    overwrite: bool = False,
) -> None:
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(seed, seed + per_class):
            draw_cell(label, number, size).save(folder / label / f"{label}_{number}.png")
