"""A recipe that takes a second, and images to train on that are drawn in memory."""

from __future__ import annotations

import numpy as np

from hemascope.classes import BLOOD_CELLS, ClassSet
from hemascope.data.auxiliary import AuxiliaryColumn, AuxiliaryTargets
from hemascope.training.images import TrainingData
from hemascope.training.recipe import Recipe

TINY = Recipe(
    model="efficientnet_lite",
    image_size=64,
    epochs=2,
    batch_size=8,
    learning_rate=3e-3,
    val_fraction=0.25,
    precision="fp32",
    ema_decay=0.9,
)

COLUMNS = (
    AuxiliaryColumn("shape", ("round", "band", "lobes")),
    AuxiliaryColumn("size", ("a", "b")),
)


def drawn_data(n: int = 48) -> TrainingData:
    """Frames whose brightness tells their class and, where it is known, their first column."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, n)
    frames = random.integers(0, 40, (n, 64, 64, 3)) + 60 * targets[:, None, None, None]
    known = np.stack([targets, random.integers(0, 2, n)], 1)
    known[random.random(known.shape) < 0.4] = -1
    return TrainingData(
        ClassSet(BLOOD_CELLS.classes[:3]),
        frames.astype(np.uint8),
        tuple(targets.tolist()),
        1.0,
        None,
        (),
        "drawn",
        auxiliary=AuxiliaryTargets(COLUMNS, known),
    )
