"""What networks say of the cells of laboratories, for the benchmarks of laboratories left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from hemascope.bundle.heads import Head
from hemascope.data.augment import to_images
from hemascope.models.ensemble import Ensemble
from hemascope.models.network import CellNetwork
from hemascope.post_training.left_out import LeftOutCells
from hemascope.training.loop import network_of
from hemascope.training.recipe import Recipe
from leave_one_out import FRAME, NAMES, SIZE, Cells

KNOWN_PER_GROUP = 100  # cells of each class of each laboratory that a detector is fitted to


def read_seeds(runs: Path, name: str) -> tuple[Ensemble, list[Recipe]]:
    """The networks of the runs of one name, as one, and their recipes."""
    members = [read_run(folder) for folder in sorted(runs.glob(f"{name}_[0-9]"))]
    return Ensemble([network for network, _ in members]).eval(), [recipe for _, recipe in members]


def read_run(folder: Path) -> tuple[CellNetwork, Recipe]:
    """A run's network with its best weights."""
    recipe = Recipe(**json.loads((folder / "recipe.json").read_text()))
    network = network_of(recipe, len(NAMES))
    network.load_state_dict(load_file(folder / "best.safetensors"))
    return network.eval(), recipe


def head_of(network: CellNetwork) -> Head:
    """A network's last layer, as adapting takes it."""
    weight, bias = network.head.weight.detach(), network.head.bias.detach()
    return Head(weight.double().numpy(), bias.double().numpy())


@torch.inference_mode()
def outputs_of(network: Ensemble, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Logits, features and style statistics of images (N,S,S,3)."""
    found: list[list[np.ndarray]] = [[], [], []]
    for first in range(0, len(images), 128):
        outputs = network.outputs(to_images(torch.from_numpy(images[first : first + 128])))
        for kept, output in zip(
            found, (outputs.logits, outputs.features, outputs.style_statistics), strict=True
        ):
            kept.append(output.numpy())
    return tuple(np.concatenate(kept) for kept in found)


def images_of(cells: Cells, chosen: np.ndarray) -> np.ndarray:
    """What a model sees of the chosen cells, by a mask or by indices, (N,S,S,3)."""
    start = (FRAME - SIZE) // 2
    middle = slice(start, start + SIZE)
    return np.ascontiguousarray(cells.frames[chosen][:, middle, middle])


def known_cells(cells: Cells, without: str) -> np.ndarray:
    """Up to 100 training cells of each class of each laboratory but one; a mask."""
    chosen = np.zeros(len(cells.targets), dtype=bool)
    trained = cells.training(without) & (cells.targets >= 0)
    for laboratory in np.unique(cells.laboratories):
        for target in range(len(NAMES)):
            group = trained & (cells.laboratories == laboratory) & (cells.targets == target)
            chosen[np.flatnonzero(group)[:KNOWN_PER_GROUP]] = True
    return chosen


def join(several: Iterable[LeftOutCells]) -> LeftOutCells:
    """The cells of several laboratories as one."""
    parts = list(several)
    return LeftOutCells(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.distances for part in parts]),
        np.concatenate([part.targets for part in parts]),
        tuple(name for part in parts for name in part.laboratories),
    )
