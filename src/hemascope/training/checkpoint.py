"""The state of a run after an epoch: one safetensors file, and nothing that executes on loading.

What is random in an epoch comes from the seed and the epoch's number, and the learning rate from
the progress, so weights, their average and the optimiser's moments are all there is to keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hemascope.files import atomic_path
from hemascope.serialization import from_json, to_json
from hemascope.training.optim import WeightAverage


@dataclass(frozen=True)
class Progress:
    """How far a run has come. `loss_scale` is fp16's; `recipe` is the recipe's digest."""

    recipe: str
    data: str
    epochs_done: int = 0
    average_steps: int = 0
    loss_scale: float | None = None


def save_checkpoint(
    path: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> None:
    """Writes the whole state of a run after an epoch, whole or not at all."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.state.items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{name}/{key}"] = value
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(contiguous, temporary, {"progress": to_json(progress).decode()})


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> Progress:
    """Puts a checkpoint's state into the model, the optimiser and the average.

    Raises ValueError for a file that is damaged or of another model.
    """
    progress, tensors = read_checkpoint(path)
    try:
        model.load_state_dict(select_under(tensors, "model"))
        if average is not None:
            for name, value in select_under(tensors, "average").items():
                average.state[name].copy_(value)
            average.steps = progress.average_steps
        for name, parameter in model.named_parameters():
            state = select_under(tensors, f"optimizer/{name}")
            optimizer.state[parameter] = {
                key: _match_layout(parameter, value) for key, value in state.items()
            }
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: does not fit this recipe's model: {error}") from None
    return progress


def _match_layout(parameter: Tensor, value: Tensor) -> Tensor:
    """A moment in its parameter's memory format, which fused optimisers take for granted."""
    if value.shape != parameter.shape:  # a step count
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter).copy_(value)


def read_checkpoint(path: Path) -> tuple[Progress, dict[str, Tensor]]:
    """A checkpoint's progress and tensors. Raises ValueError for a damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a whole checkpoint: {error}") from None
    return from_json(metadata.get("progress", "null"), Progress), tensors


def select_under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named prefix/…, without the prefix."""
    start = f"{prefix}/"
    return {n.removeprefix(start): value for n, value in tensors.items() if n.startswith(start)}
