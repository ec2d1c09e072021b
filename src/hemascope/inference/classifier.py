"""Classifier: images → Predictions, on onnxruntime, numpy and pillow alone."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from hemascope.arrays import ImageArray
from hemascope.bundle.bundle import Bundle, read_bundle
from hemascope.bundle.engine import Engine, Scores
from hemascope.preprocess import ImageError, ImageSource, View
from hemascope.records import Prediction
from hemascope.uncertainty.ensemble import disagreement
from hemascope.uncertainty.model import UNLIKE, Assessment, assess
from hemascope.uncertainty.temperature import softmax

T = TypeVar("T")
Images: TypeAlias = "ImageSource | View | Iterable[ImageSource | View]"

ON_PROCESSORS, ON_GPU = 8, 64  # images in a batch; larger ones are no faster on processors
AHEAD = 2  # batches a processor that may wait to be handed over in their order


class Classifier:
    """A bundle, loaded and ready. Safe to share between threads.

    Without a bundle it takes the one that comes with the package. `threads` is how many
    processors it may use, by default all. With `tta` (test-time augmentation) it looks at each
    image in the eight symmetries of the square, which takes eight times as long, and answers with
    the mean. A bundle with a network for unlike cells asks it for those; their out-of-distribution
    score stays the first network's. Raises BundleError for a bundle that cannot be used.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        threads: int | None = None,
        tta: bool = False,
    ):
        self.tta = tta
        if not isinstance(bundle, Bundle):
            bundle = read_bundle(None if bundle is None else Path(bundle))
        self._bundle, self.card = bundle, bundle.card
        self.engine = Engine(bundle, threads, tta)
        self.threads = self.engine.threads

    def map_offset(self, answer: Prediction) -> float:
        """How many places further left and up lies what a place of its class map shows.

        Those of test-time augmentation are put right before their mean is taken.
        """
        return 0.0 if self.tta else self.judge(answer).card.map_offset

    def judge(self, answer: Prediction) -> Classifier:
        """The network that gave an answer of this one's: itself, or that for unlike cells."""
        return (answer.in_distribution is False and self.elsewhere) or self

    def predict(
        self, images: Images, class_maps: bool = False, um_per_pixel: float | None = None
    ) -> list[Prediction]:
        """One Prediction an image, in order; see `stream`."""
        return list(self.stream(images, class_maps, um_per_pixel=um_per_pixel))

    def stream(
        self,
        images: Images,
        class_maps: bool = False,
        batch_size: int | None = None,
        um_per_pixel: float | None = None,
    ) -> Iterator[Prediction]:
        """Predictions in the order of the images, which may be any number of them.

        An image is a path, an encoded file's bytes, a PIL image, an array (see
        `preprocess.decode`), or a View of one. One that cannot be read gives a Prediction whose
        status says why. `um_per_pixel` is how many micrometres a pixel of these images is wide;
        None where they look like the training images. Raises ValueError for one that the model's
        input spec cannot use.

        One batch is worked on by all processors together; several are, side by side, each by one
        processor from the file to the answer, which leaves none waiting for another. A batch is
        8 images by default, and 64 where there is a GPU.
        """
        size = batch_size or (ON_GPU if self.engine.uses_gpu else ON_PROCESSORS)
        batches = _batches(_one_or_many(images), size)
        first = list(itertools.islice(batches, 2))
        if len(first) == 1:
            yield from self._classify(first[0], class_maps, um_per_pixel)
        if len(first) < 2:
            return
        pending: deque[Future[list[Prediction]]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for batch in itertools.chain(first, batches):
                work = self._on_one_processor._classify
                pending.append(pool.submit(work, batch, class_maps, um_per_pixel))
                if len(pending) > AHEAD * self.threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()

    def scores(self, batch: ImageArray) -> Scores:
        """The graph's outputs for preprocessed images (N,S,S,3) uint8; see Engine."""
        return self.engine.scores(batch)

    @cached_property
    def elsewhere(self) -> Classifier | None:
        """What names the cells that are unlike the training cells; loaded when first needed."""
        bundle = self._bundle.elsewhere
        return None if bundle is None else Classifier(bundle, self.threads, self.tta)

    @cached_property
    def _on_one_processor(self) -> Classifier:
        return self if self.threads == 1 else Classifier(self._bundle, 1, self.tta)

    def _classify(
        self, batch: list[ImageSource | View], class_maps: bool, um_per_pixel: float | None
    ) -> list[Prediction]:
        loaded: list[ImageArray] = []
        notices: list[str] = []
        failures: dict[int, str] = {}
        for position, image in enumerate(batch):
            try:
                pixels, notice = self.card.input.read(image, um_per_pixel)
            except ImageError as error:
                failures[position] = str(error)
            else:
                loaded.append(pixels)
                notices.append(notice)
        paths = [_path(image) for position, image in enumerate(batch) if position not in failures]
        answers = self._referred(paths, np.stack(loaded), class_maps) if loaded else []
        noted = (
            replace(answer, notice=notice) if notice else answer
            for answer, notice in zip(answers, notices, strict=True)
        )
        return [
            Prediction(_path(image), None, None, {}, failures[position])
            if position in failures
            else next(noted)
            for position, image in enumerate(batch)
        ]

    def _referred(
        self, paths: list[str | None], images: ImageArray, class_maps: bool
    ) -> list[Prediction]:
        """Predictions of preprocessed images (N,S,S,3), unlike ones by the network for them."""
        answers = list(self._answers(paths, images, class_maps))
        unlike = [row for row, answer in enumerate(answers) if answer.in_distribution is False]
        if unlike and self.elsewhere is not None:
            paths = [paths[row] for row in unlike]
            others = self.elsewhere._answers(paths, images[unlike], class_maps)
            for row, other in zip(unlike, others, strict=True):
                own = answers[row]
                reasons = (UNLIKE, *(why for why in other.review_reasons if why != UNLIKE))
                answers[row] = replace(
                    other,
                    ood_score=own.ood_score,
                    in_distribution=False,
                    review=True,
                    review_reasons=reasons,
                )
        return answers

    def _answers(
        self, paths: list[str | None], images: ImageArray, class_maps: bool
    ) -> Iterator[Prediction]:
        """Predictions of preprocessed images (N,S,S,3)."""
        scores = self.scores(images)
        probabilities = softmax(scores.logits, self.card.temperature)
        trust, names = self.card.trust, self.card.classes.names
        several = scores.members.shape[1] > 1
        parting = disagreement(scores.members, self.card.temperature) if several else None
        found = (
            None
            if trust is None
            else assess(trust, probabilities, scores.features, scores.texture, images)
        )
        for row, best in enumerate(probabilities.argmax(axis=1)):
            yield Prediction(
                path=paths[row],
                label=names[best],
                probability=float(probabilities[row, best]),
                probabilities=dict(zip(names, probabilities[row].tolist(), strict=True)),
                disagreement=None if parting is None else float(parting[row]),
                class_map=scores.class_map[row] if class_maps else None,
                **({} if found is None else _judgement(found, row, names)),
            )


def _judgement(found: Assessment, row: int, names: tuple[str, ...]) -> dict[str, Any]:
    """What a Prediction says of itself."""
    return {
        "prediction_set": tuple(itertools.compress(names, found.sets[row])),
        "class_conditional_set": tuple(itertools.compress(names, found.class_sets[row])),
        "ood_score": float(found.ood_scores[row]),
        "in_distribution": bool(found.ood_scores[row] <= 1),
        "review": bool(found.reasons[row]),
        "review_reasons": found.reasons[row],
    }


def _one_or_many(images: Images) -> Iterable[ImageSource | View]:
    if isinstance(images, (str, Path, bytes, Image.Image, View)):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim < 4:
        return [images]
    return images


def _path(image: ImageSource | View) -> str | None:
    image = image.image if isinstance(image, View) else image
    return str(image) if isinstance(image, (str, Path)) else None


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
