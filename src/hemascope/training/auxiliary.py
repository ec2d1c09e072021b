"""Auxiliary targets: what else than its class a network learns to tell of a cell.

Each column is a question with a few answers, such as the shape of the nucleus. While training, one
linear layer on the features behind the class logits answers all of them; the graph that is exported
has the class logits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hemascope.arrays import BoolArray, IntArray
from hemascope.attributes import ATTRIBUTES
from hemascope.classes import ClassSet
from hemascope.data.attributes import UNKNOWN, AttributeTable, attributes_of
from hemascope.data.manifest import Manifest
from hemascope.files import atomic_path
from hemascope.models.network import CellNetwork
from hemascope.serialization import to_json
from hemascope.subtypes import name_subtype


@dataclass(frozen=True)
class AuxiliaryColumn:
    """A question that a network learns to answer, and its answers in the order of the outputs."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class AuxiliaryTargets:
    """K columns, and for each of N images the index of each column's value; -1 where not known."""

    columns: tuple[AuxiliaryColumn, ...]
    indices: IntArray  # (N,K)

    @property
    def sizes(self) -> list[int]:
        """How many values each column has."""
        return [len(column.values) for column in self.columns]

    def select(self, chosen: BoolArray) -> AuxiliaryTargets:
        """Those of the images that are chosen, (N,)."""
        return AuxiliaryTargets(self.columns, self.indices[chosen])


def collect_targets(
    manifest: Manifest, classes: ClassSet, table: AttributeTable | None = None
) -> AuxiliaryTargets | None:
    """The subtypes and the attributes that are known of a manifest's rows; None if there are none.

    Each class of two or more subtypes has a column of its own, so that subtypes are told apart
    within their class; ATTRIBUTES have a column each where a table is given.
    """
    columns: list[AuxiliaryColumn] = []
    indices: list[list[int]] = []
    names = [
        (found.name, name_subtype(row.subtype, found)) if (found := classes.find(row.label)) else ()
        for row in manifest.rows
    ]
    for cell_class in classes:
        own = [name[1] if name and name[0] == cell_class.name else "" for name in names]
        values = tuple(sorted(set(own) - {""}))
        if len(values) > 1:
            columns.append(AuxiliaryColumn(f"subtype of {cell_class.name}", values))
            indices.append([values.index(name) if name else UNKNOWN for name in own])
    if table is not None:
        columns += [AuxiliaryColumn(a.name, a.values) for a in ATTRIBUTES]
        indices += [list(column) for column in zip(*attributes_of(manifest, table), strict=True)]
    if not columns:
        return None
    return AuxiliaryTargets(tuple(columns), np.array(indices, np.int64).T)


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
