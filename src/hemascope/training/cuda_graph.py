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

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""images (N,3,S,S), targets (N,C), auxiliary (N,K) → a tensor of what the step came to."""
Inputs = tuple[Tensor, Tensor, Tensor]
WARM_UP = 3  # steps before the recording, in which kernels are chosen and buffers made


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: Inputs
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

    def __call__(self, images: Tensor, targets: Tensor, auxiliary: Tensor) -> Tensor:
        inputs, shape = (images, targets, auxiliary), images.shape
        self._calls[shape] += 1
        if self._calls[shape] <= WARM_UP:
            return self._aside(inputs)
        if shape not in self._recordings:
            self._recordings[shape] = self._record(inputs)
        recording = self._recordings[shape]
        for recorded, given in zip(recording.inputs, inputs, strict=True):
            recorded.copy_(given)
        recording.graph.replay()
        return recording.result

    def _aside(self, inputs: Inputs) -> Tensor:
        """The plain step, on a stream of its own as a recording demands of those before it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self.step(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _record(self, inputs: Inputs) -> _Recording:
        images, targets, auxiliary = inputs
        inputs = images.clone(), targets.clone(), auxiliary.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self.step(*inputs)
        return _Recording(graph, inputs, result)
