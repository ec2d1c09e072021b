"""CellDataset: frames from the cache and their class indices, fetched a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hemascope.arrays import ImageArray

Batch = tuple[Tensor, Tensor]  # frames (N,F,F,3) uint8, targets (N,) int64


class CellDataset(Dataset[Batch]):
    """Frames (N,F,F,3) uint8, usually memory-mapped, with targets (N,).

    A batch is gathered in one step (`__getitems__`), so that no worker processes are needed to
    keep up with the model. Raises ValueError where the lengths differ.
    """

    def __init__(self, frames: ImageArray, targets: Sequence[int]) -> None:
        if len(frames) != len(targets):
            raise ValueError(f"{len(frames)} frames but {len(targets)} targets")
        self.frames = frames
        self.targets = torch.tensor(targets, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, positions: list[int]) -> Batch:
        frames = torch.from_numpy(self.frames[np.asarray(positions)])
        return frames, self.targets[positions]

    def __getitem__(self, position: int) -> Batch:
        return self.__getitems__([position])


class EpochShuffle(Sampler[int]):
    """Another order every epoch, which the seed and the epoch alone determine."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        return iter(order.tolist())


def _whole(batch: Any) -> Any:
    return batch


def train_loader(dataset: CellDataset, batch_size: int, seed: int) -> DataLoader[Batch]:
    """Shuffled batches of one size; what is left over waits for another epoch's order."""
    return DataLoader(
        dataset,
        batch_size=min(batch_size, len(dataset)),
        sampler=EpochShuffle(len(dataset), seed),
        collate_fn=_whole,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
    )


def test_loader(dataset: CellDataset, batch_size: int) -> DataLoader[Batch]:
    """Every image once, in order."""
    return DataLoader(dataset, batch_size=batch_size, collate_fn=_whole)
