"""Optimiser, learning-rate schedules and weight averaging."""

from __future__ import annotations

import math
from bisect import bisect_right

import torch
from torch import Tensor, nn

from hemascope.training.recipe import Recipe


def build_optimizer(
    model: nn.Module, recipe: Recipe, capturable: bool = False
) -> torch.optim.Optimizer:
    """The recipe's optimiser; a capturable one can be recorded in a CUDA graph."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, recipe.learning_rate, momentum=0.9, weight_decay=decay)
    adam = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    rate = torch.tensor(recipe.learning_rate, device="cuda") if capturable else recipe.learning_rate
    return adam(
        parameters,
        rate,
        betas=(0.9, 0.999),
        weight_decay=decay,
        fused=True,
        capturable=capturable,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets every group's rate, in place where it is a tensor that a CUDA graph reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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
        current = model.state_dict()  # the model's own tensors, which training changes in place
        self.state = {name: value.detach().clone() for name, value in current.items()}
        real = [name for name, value in current.items() if value.is_floating_point()]
        counts = [name for name in current if name not in set(real)]
        self._real = [self.state[name] for name in real], [current[name] for name in real]
        self._counts = [self.state[name] for name in counts], [current[name] for name in counts]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the model's weights as they are after a step."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(*self._real, weight)
        if self._counts[0]:  # of batches seen, which only batch normalisation keeps
            torch._foreach_copy_(*self._counts)
