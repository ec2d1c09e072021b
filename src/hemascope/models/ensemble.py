"""Ensemble: several trained networks that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hemascope.models.network import CellNetwork, Outputs


class Ensemble(nn.Module):
    """Networks for the same classes and image size, whose logits are averaged.

    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017; the mean is of logits, so that the class map stays linear in them.
    """

    def __init__(self, networks: Sequence[CellNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    @property
    def map_offset(self) -> float:
        """Its members' mean."""
        offsets = [cast(CellNetwork, network).map_offset for network in self.networks]
        return sum(offsets) / len(offsets)

    def outputs(self, images: Tensor) -> Outputs:
        """Of images (N,3,S,S) in 0..1. Its members' class maps must be of one size."""
        parts = [cast(CellNetwork, network).outputs(images) for network in self.networks]
        members = torch.cat([part.members for part in parts], dim=1)  # (N,M,C)
        return Outputs(
            logits=members.mean(1),
            features=torch.cat([part.features for part in parts], dim=1),
            class_map=torch.stack([part.class_map for part in parts]).mean(0),
            texture=torch.cat([part.texture for part in parts], dim=1),
            members=members,
        )
