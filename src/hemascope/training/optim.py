"""Optimiser, learning-rate schedules and weight averaging."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch
from torch import Tensor, nn

from hemascope.training.recipe import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters, rate, decay = model.parameters(), recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay)
    adam = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return adam(parameters, rate, betas=(0.9, 0.999), weight_decay=decay, fused=True)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate at a point of the run, in epochs from 0 to `recipe.epochs`.

    A function of the progress alone, so that a resumed run needs no state for it. Cosine with
    restarts after each cycle: Loshchilov and Hutter, "SGDR", ICLR 2017.
    """
    if progress < recipe.warmup_epochs:
        return recipe.learning_rate * max(progress, 0.01) / recipe.warmup_epochs
    done = (progress - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    if recipe.schedule == "cosine":
        span = recipe.learning_rate - recipe.min_learning_rate
        return (
            recipe.min_learning_rate + span * (1 + math.cos(math.pi * _in_cycle(recipe, done))) / 2
        )
    if recipe.schedule == "step":
        return float(recipe.learning_rate * 0.1 ** min(2, int(3 * done)))
    return recipe.learning_rate


def _in_cycle(recipe: Recipe, done: float) -> float:
    """How much of its cycle is done, where this much of the run is; cycles end with an epoch."""
    if done >= 1:
        return 1.0
    epochs = recipe.epochs - recipe.warmup_epochs
    ends = [round(epochs * k / recipe.cycles) / epochs for k in range(recipe.cycles + 1)]
    k = bisect_right(ends, done)
    return (done - ends[k - 1]) / (ends[k] - ends[k - 1])


class WeightAverage:
    """Exponential moving average of a model's parameters and running statistics.

    The decay is smaller in the first steps, (1+t)/(10+t), so that the random start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averaged.append(self.state[name])
                current.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averaged, current, weight)
