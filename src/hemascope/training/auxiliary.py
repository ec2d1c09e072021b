"""What else than its class a network learns to tell of a cell, while it trains.

One linear layer on the features behind the class logits answers all auxiliary questions; the graph
that is exported has the class logits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hemascope.data.attributes import UNKNOWN
from hemascope.data.auxiliary import AuxiliaryColumn
from hemascope.files import atomic_path
from hemascope.models.network import CellNetwork
from hemascope.serialization import to_json


class WithAuxiliary(nn.Module):
    """A network with a linear layer beside its last: images → (N,C+V), class logits first.

    V is the number of values of all auxiliary columns together, whose `sizes` are given.
    """

    def __init__(self, network: CellNetwork, sizes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.auxiliary = nn.Linear(network.head.in_features, sum(sizes))

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → (N,C+V)."""
        features = self.network.embed(images)
        return torch.cat([self.network.head(features), self.auxiliary(features)], 1)


def auxiliary_loss(logits: Tensor, targets: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits (N,V), targets (N,K): summed cross-entropy of what is known, and how much that is."""
    parts = [
        nn.functional.cross_entropy(part, column, ignore_index=UNKNOWN, reduction="sum")
        for part, column in zip(torch.split(logits, list(sizes), 1), targets.unbind(1), strict=True)
    ]
    return torch.stack(parts).sum(), (targets != UNKNOWN).sum()


def save_auxiliary(path: Path, learner: WithAuxiliary, columns: Sequence[AuxiliaryColumn]) -> None:
    """Writes the auxiliary layer, with its columns as JSON in the file's metadata."""
    state = {name: value.contiguous() for name, value in learner.auxiliary.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, {"columns": to_json(list(columns)).decode()})
