"""GraphedStep: a training step that is recorded once on a GPU and then replayed.

A step of a small network is a few thousand short kernels; launching them one by one takes a
processor longer than computing them takes the GPU. A CUDA graph launches all of them at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]
"""images (N,3,S,S), targets (N,) → a tensor of what the step came to."""
WARM_UP = 3  # steps before the recording, in which kernels are chosen and buffers made


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    images: Tensor
    targets: Tensor
    result: Tensor


class GraphedStep:
    """A step as a CUDA graph for each shape of images that it meets.

    The step must leave no gradient behind and wait for nothing. Its result is overwritten by the
    next call.
    """

    def __init__(self, step: Step) -> None:
        self.step = step
        self._calls: Counter[torch.Size] = Counter()
        self._recordings: dict[torch.Size, _Recording] = {}

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        shape = images.shape
        self._calls[shape] += 1
        if self._calls[shape] <= WARM_UP:
            return self._aside(images, targets)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(images, targets)
        recording = self._recordings[shape]
        recording.images.copy_(images)
        recording.targets.copy_(targets)
        recording.graph.replay()
        return recording.result

    def _aside(self, images: Tensor, targets: Tensor) -> Tensor:
        """The plain step, on a stream of its own as a recording demands of those before it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self.step(images, targets)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _record(self, images: Tensor, targets: Tensor) -> _Recording:
        images, targets = images.clone(), targets.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self.step(images, targets)
        return _Recording(graph, images, targets, result)
