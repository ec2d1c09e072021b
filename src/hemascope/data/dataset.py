"""CellDataset: frames from the cache and their class indices, fetched a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hemascope.arrays import FloatArray, ImageArray, IntArray

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor]  # frames (N,F,F,3) uint8, targets (N,) or (N,T) int64


class CellDataset(Dataset[Batch]):
    """Frames (N,F,F,3) uint8, usually memory-mapped, with targets (N,), or T of each as (N,T).

    A batch is gathered in one step (`__getitems__`), so that no worker processes are needed to
    keep up with the model. On a GPU as `device` all frames are copied there, once. Raises
    ValueError where the lengths differ.
    """

    def __init__(
        self, frames: ImageArray, targets: Sequence[int] | IntArray, device: torch.device = CPU
    ) -> None:
        if len(frames) != len(targets):
            raise ValueError(f"{len(frames)} frames but {len(targets)} targets")
        self.frames, self.device = frames, device
        self.targets = torch.tensor(targets, dtype=torch.int64, device=device)
        if device.type != "cpu":
            self.resident = torch.tensor(frames, device=device)

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
    """Another order every epoch, which the seed and the epoch alone determine.

    With `weights` (N,), which sum to the number of images to draw, each image is drawn so many
    times in the mean, and in one epoch the next whole number below or above.
    """

    def __init__(self, n: int, seed: int, weights: FloatArray | None = None) -> None:
        self.n, self.seed, self.weights, self.epoch = n, seed, weights, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n if self.weights is None else round(float(self.weights.sum()))

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        if self.weights is None:
            return iter(random.permutation(self.n).tolist())
        # Systematic sampling: of a line cut into pieces as long as the weights, one point a unit,
        # with the pieces in another order every epoch.
        order = random.permutation(self.n)
        points = np.arange(len(self)) + random.random()
        drawn = order[np.searchsorted(np.cumsum(self.weights[order]), points).clip(max=self.n - 1)]
        return iter(random.permutation(drawn).tolist())


def _whole(batch: Any) -> Any:
    return batch


def train_loader(
    dataset: CellDataset, batch_size: int, seed: int, weights: FloatArray | None = None
) -> DataLoader[Batch]:
    """Shuffled batches of one size; what is left over waits for another epoch's order."""
    sampler = EpochShuffle(len(dataset), seed, weights)
    return DataLoader(
        dataset,
        batch_size=min(batch_size, len(sampler)),
        sampler=sampler,
        collate_fn=_whole,
        drop_last=True,
        pin_memory=torch.cuda.is_available() and dataset.device.type == "cpu",
    )


def test_loader(dataset: CellDataset, batch_size: int) -> DataLoader[Batch]:
    """Every image once, in order."""
    return DataLoader(dataset, batch_size=batch_size, collate_fn=_whole)
