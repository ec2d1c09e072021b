"""fit_locator(recipe, …): trains the network that finds cells. Read it from top to bottom."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hemascope.data.augment import (
    POLICIES,
    add_noise,
    colour_matrices,
    defocus,
    exchange_stains,
    recolour,
    restain,
    to_images,
)
from hemascope.errors import TrainingError
from hemascope.files import atomic_path, write_atomic
from hemascope.models.locator import STRIDE, TYPICAL, LocatorNetwork
from hemascope.serialization import to_json
from hemascope.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from hemascope.training.locator_fields import LocatorData, draw_crops
from hemascope.training.locator_recipe import ROUND, LocatorRecipe
from hemascope.training.locator_targets import Targets, make_targets
from hemascope.training.machine import has_native_bf16
from hemascope.training.optim import WeightAverage

WARMUP = 100  # steps
OTHER_STAIN, OTHER_SITE, OUT_OF_FOCUS = 0.3, 0.5, 0.15  # shares of the crops
BOX_WEIGHT, SIZE_WEIGHT = 2.0, 0.5
ADAM_CLIP = 10.0


@dataclass(frozen=True)
class LocatorRecord:
    """One row of metrics.csv: means over the steps of a round."""

    step: int
    learning_rate: float
    heat_loss: float
    box_loss: float
    seconds: float


OnRound = Callable[[LocatorRecord], None]


def fit_locator(
    recipe: LocatorRecipe, data: LocatorData, folder: Path, on_round: OnRound | None = None
) -> LocatorNetwork:
    """The trained network, its weights averaged; from the folder's checkpoint if it has one.

    After every 100 steps the folder holds the whole state, so that a run that was killed goes on
    to the same weights. Raises TrainingError where the folder is another recipe's or the loss is
    no longer a number.
    """
    recipe = _settle(recipe)
    torch.manual_seed(recipe.seed)
    network = LocatorNetwork(width=recipe.width)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    average = WeightAverage(network, recipe.ema_decay)
    last, progress = folder / "last.safetensors", Progress(recipe.digest(), data.digest)
    if last.exists():
        found = load_checkpoint(last, network, optimizer, average)
        if (found.recipe, found.data) != (progress.recipe, progress.data):
            raise TrainingError(f"{folder}: holds a run of another recipe or of other fields")
        progress = found
    write_atomic(folder / "recipe.json", to_json(recipe))
    records = _read_records(folder / "metrics.csv")[: progress.epochs_done]
    last_step = recipe.stop_after or recipe.steps
    rounds = math.ceil(last_step / ROUND)
    for number in range(progress.epochs_done, rounds):
        steps = range(number * ROUND, min(last_step, (number + 1) * ROUND))
        records.append(_train(recipe, data, network, optimizer, average, steps))
        progress = replace(progress, epochs_done=number + 1, average_steps=average.steps)
        save_checkpoint(last, progress, network, optimizer, average)
        _write_records(folder / "metrics.csv", records)
        if on_round is not None:
            on_round(records[-1])
    network.load_state_dict(average.state)
    network.eval()
    return network


def _settle(recipe: LocatorRecipe) -> LocatorRecipe:
    if recipe.precision != "auto":
        return recipe
    return replace(recipe, precision="bf16" if has_native_bf16() else "fp32")


def _train(
    recipe: LocatorRecipe,
    data: LocatorData,
    network: LocatorNetwork,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    steps: range,
) -> LocatorRecord:
    network.train()
    started, sums, rate = time.perf_counter(), np.zeros(2), 0.0
    for step in steps:
        rate = _learning_rate(recipe, step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, targets = _batch(recipe, data, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            maps = network(images)
        heat, box = locator_loss(maps.float(), targets)
        loss = heat + BOX_WEIGHT * box
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss is no number in step {step}; lower --learning-rate")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), ADAM_CLIP)
        optimizer.step()
        average.update()
        sums += (heat.item(), box.item())
    heat_loss, box_loss = (sums / len(steps)).tolist()
    seconds = time.perf_counter() - started
    return LocatorRecord(steps.stop, rate, heat_loss, box_loss, seconds)


def _learning_rate(recipe: LocatorRecipe, step: int) -> float:
    done = max(0, step - WARMUP) / max(1, recipe.steps - WARMUP)
    rise = min(1.0, (step + 1) / WARMUP)
    return recipe.learning_rate * rise * (1 + math.cos(math.pi * done)) / 2


def _batch(recipe: LocatorRecipe, data: LocatorData, step: int) -> tuple[Tensor, list[Tensor]]:
    """A step's crops (N,3,S,S), recoloured, and their targets; the same ones every time."""
    rng = np.random.default_rng([recipe.seed, step])
    crops = draw_crops(data, recipe, recipe.batch_size, rng)
    targets = [make_targets(crop) for crop in crops]
    stacked = [
        torch.from_numpy(np.stack([getattr(target, field.name) for target in targets]))
        for field in fields(Targets)
    ]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(rng.integers(2**31)))
        images = to_images(torch.from_numpy(np.stack([crop.image for crop in crops])))
        images = _recolour(images)
    return images.contiguous(memory_format=torch.channels_last), stacked


def _recolour(images: Tensor) -> Tensor:
    """Other stains, light, focus and cameras, each for a share of the crops."""
    policy = POLICIES["laboratories"]
    images = exchange_stains(images, OTHER_STAIN)
    images = recolour(images, colour_matrices(len(images), policy), policy.contrast)
    other_dyes = partial(restain, mixing=policy.dye_mixing)
    for share, change in (
        (OTHER_SITE, other_dyes),
        (OUT_OF_FOCUS, defocus),
        (OTHER_SITE, add_noise),
    ):
        chosen = torch.rand(len(images)) < share
        if chosen.any():
            images[chosen] = change(images[chosen])
    return images


def locator_loss(maps: Tensor, targets: list[Tensor]) -> tuple[Tensor, Tensor]:
    """How far maps (N,K+4,s,s) are from the targets: of the centres, and of the boxes.

    The focal loss of the centres is each kind's own mean over its cells. Law and Deng, "CornerNet",
    ECCV 2018.
    """
    heat, counts, boxes, weights = targets
    kinds = heat.shape[1]
    logits = maps[:, :kinds]
    log_p, log_not = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    p = torch.sigmoid(logits)
    is_centre = (heat == 1).float() * counts
    positive = -((1 - p) ** 2) * log_p * is_centre
    negative = -((1 - heat) ** 4) * p**2 * log_not * (1 - is_centre) * counts
    per_kind = (positive + negative).sum((0, 2, 3)) / (is_centre.sum((0, 2, 3)) + 1)
    return per_kind.mean(), _box_loss(decode_boxes(maps[:, kinds:]), boxes, weights)


def decode_boxes(maps: Tensor) -> Tensor:
    """(N,4,s,s) as the network gives them → x0, y0, x1, y1 in pixels."""
    rows, columns = maps.shape[2:]
    x = (torch.arange(columns) + 0.5 + maps[:, 0]) * STRIDE
    y = (torch.arange(rows)[:, None] + 0.5 + maps[:, 1]) * STRIDE
    half_width, half_height = (
        torch.exp(m.clamp(-4, 4)) * TYPICAL / 2 for m in (maps[:, 2], maps[:, 3])
    )
    return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], dim=1)


def _box_loss(found: Tensor, boxes: Tensor, weights: Tensor) -> Tensor:
    """One less the overlap (intersection over union), and the logarithms of the sides."""
    chosen = weights > 0
    if not chosen.any():
        return found.sum() * 0
    weight = weights[chosen]
    ours, theirs = (b.permute(0, 2, 3, 1)[chosen] for b in (found, boxes))  # (M,4)
    low, high = torch.maximum(ours[:, :2], theirs[:, :2]), torch.minimum(ours[:, 2:], theirs[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    our_sides, their_sides = ours[:, 2:] - ours[:, :2], theirs[:, 2:] - theirs[:, :2]
    union = our_sides.prod(dim=1) + their_sides.prod(dim=1) - shared
    apart = ((ours + ours.roll(2, 1)) - (theirs + theirs.roll(2, 1)))[:, :2].abs() / 2
    off = (apart / their_sides).sum(dim=1)
    sides = (our_sides.log() - their_sides.log()).abs().sum(dim=1)
    losses = 1 - shared / union + SIZE_WEIGHT * (off + sides)
    return (losses * weight).sum() / weight.sum()


def _read_records(path: Path) -> list[LocatorRecord]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            LocatorRecord(
                int(row["step"]), *(float(row[f.name]) for f in fields(LocatorRecord)[1:])
            )
            for row in csv.DictReader(file)
        ]


def _write_records(path: Path, records: list[LocatorRecord]) -> None:
    names = [field.name for field in fields(LocatorRecord)]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([getattr(record, name) for name in names] for record in records)
