"""Ensemble: several trained networks that predict as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hemascope.models.network import CellNetwork, NetworkOutputs


class Ensemble(nn.Module):
    """Networks for the same classes and image size, whose logits are averaged.

    Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017; the mean is of logits, so that the class map stays linear in them.
    Members that enlarge the image differently see it at several scales.
    """

    def __init__(self, networks: Sequence[CellNetwork]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    @torch.inference_mode()
    def map_offset_at(self, size: int) -> float:
        """Its members' mean, in places of its class maps of images of that many pixels a side."""
        images = torch.zeros(1, 3, size, size)
        members = [cast(CellNetwork, network) for network in self.networks]
        sides = [member.feature_maps(images).shape[-1] for member in members]
        offsets = [
            member.map_offset_at(size) * math.lcm(*sides) / side
            for member, side in zip(members, sides, strict=True)
        ]
        return sum(offsets) / len(offsets)

    def outputs(self, images: Tensor) -> NetworkOutputs:
        """Of images (N,3,S,S) in 0..1."""
        outputs = [cast(CellNetwork, network).outputs(images) for network in self.networks]
        members = torch.cat([output.members for output in outputs], dim=1)  # (N,M,C)
        return NetworkOutputs(
            logits=members.mean(1),
            features=torch.cat([output.features for output in outputs], dim=1),
            class_map=torch.stack(_on_one_grid([output.class_map for output in outputs])).mean(0),
            style_statistics=torch.cat([output.style_statistics for output in outputs], dim=1),
            members=members,
        )


def _on_one_grid(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (N,C,h,h) of several sizes, each place divided until all are of one; means stay."""
    side = math.lcm(*(int(class_map.shape[-1]) for class_map in maps))
    return [
        class_map
        if class_map.shape[-1] == side
        else nn.functional.interpolate(class_map, size=(side, side), mode="nearest")
        for class_map in maps
    ]
