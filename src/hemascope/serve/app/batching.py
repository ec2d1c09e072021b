"""Batcher: single images of many requests → batches for one classifier, on a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from hemascope.inference.batches import predict_images
from hemascope.inference.classifier import Classifier
from hemascope.predictions import Prediction
from hemascope.preprocess import View
from hemascope.serve.app.metrics import Metrics
from hemascope.serve.app.settings import Settings


class QueueFullError(Exception):
    """More images wait than the queue may hold."""


class DrainingError(Exception):
    """The service is about to stop, and takes no more images."""


@dataclass(eq=False)
class Waiting:
    """An image in the queue, whether its class map is wanted, and who waits for its prediction."""

    view: View
    class_map: bool
    answer: asyncio.Future[Prediction] = field(repr=False)


class Batcher:
    """Predicts images of any number of requests in batches, as many at once as there are workers.

    An image that comes while nothing is worked on is predicted at once. Otherwise a batch waits a
    short window for more images; while all workers are busy, images gather in the queue. An image
    that is alone is worked on by all processors together, and of several batches each has one.
    """

    def __init__(self, classifier: Classifier, settings: Settings, metrics: Metrics) -> None:
        self.classifier, self.settings, self.metrics = classifier, settings, metrics
        self._queue: deque[Waiting] = deque()
        self._arrived = asyncio.Condition()
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="predict")
        self._workers: list[asyncio.Task[None]] = []
        self._busy = 0
        self.draining = False

    async def start(self) -> None:
        """Loads all networks, so that the first request waits for none, and starts the workers."""
        await asyncio.to_thread(_warm, self.classifier)
        self._workers = [
            asyncio.create_task(self._work(), name=f"batches {index}")
            for index in range(self.settings.workers)
        ]

    @property
    def waiting(self) -> int:
        """How many images are in the queue."""
        return len(self._queue)

    async def predict(self, views: Sequence[View], class_maps: bool) -> list[Prediction]:
        """One Prediction per image, in order.

        Raises QueueFullError where they do not all fit in the queue, DrainingError after `close`,
        and TimeoutError; images that still wait then are dropped.
        """
        if self.draining:
            raise DrainingError
        if len(self._queue) + len(views) > self.settings.queue:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        items = [Waiting(view, class_maps, loop.create_future()) for view in views]
        self._queue.extend(items)
        async with self._arrived:
            self._arrived.notify(len(items))
        try:
            async with asyncio.timeout(self.settings.timeout):
                return [await item.answer for item in items]
        finally:
            for item in items:
                item.answer.cancel()

    async def close(self) -> None:
        """Takes no more images, finishes those that wait, and ends the workers."""
        self.draining = True
        async with self._arrived:
            self._arrived.notify_all()
        await asyncio.gather(*self._workers)
        self._pool.shutdown()

    async def _work(self) -> None:
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: bool(self._queue) or self.draining)
            if not self._queue:
                return
            is_alone = self._busy == 0 and len(self._queue) == 1
            if len(self._queue) < self.settings.batch_size and not (is_alone or self.draining):
                await asyncio.sleep(self.settings.window)
            batch = self._take()
            if batch:
                await self._predict(batch)

    def _take(self) -> list[Waiting]:
        """The next batch, without images that nobody waits for any more; of one kind of answer."""
        batch: list[Waiting] = []
        while self._queue and len(batch) < self.settings.batch_size:
            if batch and self._queue[0].class_map != batch[0].class_map:
                break
            item = self._queue.popleft()
            if not item.answer.done():
                batch.append(item)
        return batch

    async def _predict(self, batch: list[Waiting]) -> None:
        # The threads of the network for all processors wait busily for more after each batch, which
        # takes from the other worker's batches once there are several.
        alone = self._busy == 0 and len(batch) == 1 and not self._queue
        classifier = self.classifier if alone else self.classifier.on_one_processor
        views = [item.view for item in batch]
        self._busy += 1
        self.metrics.observe_batch(len(batch))
        try:
            made = await asyncio.get_running_loop().run_in_executor(
                self._pool, predict_images, classifier, views, batch[0].class_map, None
            )
        except Exception as error:
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        finally:
            self._busy -= 1
        for item, prediction in zip(batch, made, strict=True):
            if not item.answer.done():
                item.answer.set_result(prediction)


def _warm(classifier: Classifier) -> None:
    size = classifier.card.input.size
    nothing = np.full((1, size, size, 3), 255, dtype=np.uint8)
    for network in (classifier, classifier.on_one_processor):
        network.outputs(nothing)
        if network.fallback is not None:
            network.fallback.outputs(nothing)
