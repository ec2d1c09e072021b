"""SimCLR and MoCo: networks that learn, without labels, which two views show the same image.

Both give logits (M,K) that say how alike views are, and the column of each row's own partner; the
loss is the cross-entropy of these. SimCLR: Chen et al., "A simple framework for contrastive
learning of visual representations", ICML 2020. MoCo: He et al., "Momentum contrast for unsupervised
visual representation learning", CVPR 2020, with the projection head and the temperature of Chen et
al., "Improved baselines with momentum contrastive learning", arXiv:2003.04297 (2020).
"""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn

from hemascope.models.network import CellNetwork
from hemascope.training.pretrain_recipe import PretrainRecipe


def nt_xent_logits(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits (2N,2N) of all views with all others, and the partners' columns (2N,).

    `first` and `second` (N,P) are the projections of the two views of N images, of length 1. A
    view is no candidate for itself.
    """
    views, n = torch.cat([first, second]), len(first)
    logits = _cosines(views, views) / temperature
    logits = logits.masked_fill(
        torch.eye(2 * n, dtype=torch.bool, device=logits.device), -torch.inf
    )
    return logits, torch.arange(2 * n, device=logits.device).roll(n)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss, the normalised temperature-scaled cross-entropy (NT-Xent).

    Parameters
    ----------
    first, second
        Projections (N,P) of the two views of N images, of any length.
    temperature
        What the cosines are divided by.

    Returns
    -------
    Tensor
        The mean over the 2N views, a scalar.

    Examples
    --------
    Two images whose views are the same, and at right angles to each other's, at temperature 1:

    >>> import torch
    >>> from hemascope.training.contrastive import nt_xent
    >>> f"{nt_xent(torch.eye(2), torch.eye(2), 1.0).item():.4f}"  # log(e + 2) - 1
    '0.5514'
    """
    logits, targets = nt_xent_logits(_unit(first), _unit(second), temperature)
    return nn.functional.cross_entropy(logits, targets)


def info_nce_logits(
    queries: Tensor, keys: Tensor, queue: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logits (N,1+K) of each query with its own key and with the queue, and the targets (N,), 0.

    `queries` and `keys` (N,P) are projections of the two views of N images, `queue` (K,P) of views
    of other images; all of length 1.
    """
    own = (queries * keys).sum(1, keepdim=True)  # (N,1)
    logits = torch.cat([own, _cosines(queries, queue)], dim=1) / temperature
    return logits, torch.zeros(len(queries), dtype=torch.int64, device=queries.device)


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo's loss, InfoNCE with a queue.

    Parameters
    ----------
    queries, keys
        Projections (N,P) of the two views of N images, of any length.
    queue
        Projections (K,P) of views of other images, of any length.
    temperature
        What the cosines are divided by.

    Returns
    -------
    Tensor
        The mean over the N queries, a scalar.

    Examples
    --------
    A view like its own key, with one at right angles in the queue, at temperature 1:

    >>> import torch
    >>> from hemascope.training.contrastive import info_nce
    >>> query, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> f"{info_nce(query, query, other, 1.0).item():.4f}"  # log(e + 1) - 1
    '0.3133'
    """
    logits, targets = info_nce_logits(_unit(queries), _unit(keys), _unit(queue), temperature)
    return nn.functional.cross_entropy(logits, targets)


class Projector(nn.Module):
    """Images (N,3,S,S) in 0..1 → features (N,F) → a hidden layer → projections (N,P), of length 1.

    The network's last layer, which would name classes, is left out.
    """

    def __init__(self, network: CellNetwork, size: int) -> None:
        super().__init__()
        features = network.head.in_features
        network.head = nn.Identity()  # type: ignore[assignment]
        self.network = network
        self.projection = nn.Sequential(
            nn.Linear(features, features), nn.ReLU(), nn.Linear(features, size)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N,3,S,S) in 0..1 → (N,P)."""
        return _unit(self.projection(self.network(images)).float())


class SimCLR(nn.Module):
    """Two views of N images, (N,3,S,S) each → logits (2N,2N) and targets (2N,)."""

    def __init__(self, network: CellNetwork, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.query = Projector(network, recipe.projection)
        self.temperature = recipe.temperature

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and targets of the batch."""
        # In one batch, so that no statistics of a batch tell which views belong together.
        one, other = self.query(torch.cat([first, second])).chunk(2)
        return nt_xent_logits(one, other, self.temperature)


class MoCo(nn.Module):
    """Two views of N images, (N,3,S,S) each → logits (N,1+K) and targets (N,).

    The keys come from a slower copy, the moving average of the network. It normalises by moving
    averages as well, since the statistics of a batch would tell which key is a query's own: Cai et
    al., "Exponential moving average normalization for self-supervised and semi-supervised
    learning", CVPR 2021.
    """

    queue: Tensor
    place: Tensor

    def __init__(self, network: CellNetwork, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.query = Projector(network, recipe.projection)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.temperature, self.momentum = recipe.temperature, recipe.momentum
        self.register_buffer("queue", _unit(torch.randn(recipe.queue, recipe.projection)))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))
        self.train()

    def train(self, mode: bool = True) -> Self:
        """As a Module's, but the slower copy normalises as in evaluation."""
        super().train(mode)
        self.key.eval()
        return self

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and targets of the batch, whose keys then take the place of the oldest."""
        queries = self.query(first)
        with torch.no_grad():
            self._follow()
            keys = self.key(second)
            others = self.queue.clone()  # backward needs them as they are now
            self._enqueue(keys)
        return info_nce_logits(queries, keys, others, self.temperature)

    def _follow(self) -> None:
        """Moves the slower copy a step towards the network."""
        fast = self.query.state_dict()
        for name, slow in self.key.state_dict().items():
            if slow.is_floating_point():
                slow.lerp_(fast[name], 1 - self.momentum)

    def _enqueue(self, keys: Tensor) -> None:
        """Puts keys (N,P) where the oldest of the queue are, which goes round."""
        size = len(self.queue)
        places = (self.place + torch.arange(len(keys), device=keys.device)) % size
        self.queue[places] = keys
        self.place.copy_((self.place + len(keys)) % size)


METHODS: dict[str, type[SimCLR] | type[MoCo]] = {"simclr": SimCLR, "moco": MoCo}


def _unit(vectors: Tensor) -> Tensor:
    return nn.functional.normalize(vectors, dim=1)


def _cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """(N,P), (K,P) of length 1 → (N,K), in full precision: a low one is too coarse for these."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ columns.T
