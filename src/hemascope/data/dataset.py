"""CellDataset: frames from the cache and their class indices, fetched a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor]  # frames (N,F,F,3) uint8, targets (N,) int64


class CellDataset(Dataset[Batch]):
    """Frames (N,F,F,3) uint8, usually memory-mapped, with targets (N,).

    A batch is gathered in one step (`__getitems__`), so that no worker processes are needed to
    keep up with the model. On a GPU as `device` all frames are copied there, once. Raises
    ValueError where the lengths differ.
    """

    def __init__(
        self,
        frames: NDArray[np.uint8],
        targets: Sequence[int],
        device: torch.device = CPU,
    ) -> None:
        if len(frames) != len(targets):
            raise ValueError(f"{len(frames)} frames but {len(targets)} targets")
        self.frames, self.device = frames, device
        self.targets = torch.tensor(targets, dtype=torch.int64, device=device)
        if device.type != "cpu":
            self.resident = torch.from_numpy(np.ascontiguousarray(frames)).to(device)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, positions: list[int]) -> Batch:
        if self.device.type == "cpu":
            frames = torch.from_numpy(self.frames[np.asarray(positions)])
            return frames, self.targets[positions]
        chosen = torch.tensor(positions, device=self.device)
        return self.resident[chosen], self.targets[chosen]

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
        pin_memory=torch.cuda.is_available() and dataset.device.type == "cpu",
    )


def test_loader(dataset: CellDataset, batch_size: int) -> DataLoader[Batch]:
    """Every image once, in order."""
    return DataLoader(dataset, batch_size=batch_size, collate_fn=_whole)
