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
from hemascope.bundle.engine import Engine, ModelOutputs
from hemascope.errors import ImageError
from hemascope.preprocess import ImageSource, View
from hemascope.records import Prediction
from hemascope.uncertainty.ensemble import disagreement
from hemascope.uncertainty.model import OUT_OF_DISTRIBUTION, Assessment, assess
from hemascope.uncertainty.temperature import softmax

T = TypeVar("T")
Images: TypeAlias = "ImageSource | View | Iterable[ImageSource | View]"

ON_PROCESSORS, ON_GPU = 8, 64  # images in a batch; larger ones are no faster on processors
AHEAD = 2  # batches a processor that may wait to be handed over in their order


class Classifier:
    """A bundle, loaded and ready. Safe to share between threads.

    Without a bundle it takes the one that comes with the package. `threads` is how many
    processors it may use, by default as many as the process may. With `tta` (test-time
    augmentation) it sees each image in the eight symmetries of the square, which takes eight times
    as long, and predicts with the mean. Images that are out of distribution are predicted by the
    fallback model, where the bundle has one; their out-of-distribution score stays the first
    network's. It can be pickled and copied, and used in a process that was forked off. Raises
    BundleError for a bundle that cannot be used, and ValueError for fewer than one processor.
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
        self._asked_threads = threads
        self.engine = Engine(bundle, threads, tta)
        self.threads = self.engine.threads

    def __reduce__(self) -> tuple[type[Classifier], tuple[Bundle, int | None, bool]]:
        """A copy, or what arrives in another process, is made anew of the bundle."""
        return Classifier, (self._bundle, self._asked_threads, self.tta)

    def map_offset(self, prediction: Prediction) -> float:
        """How many places further left and up lies what a place of its class map shows.

        Those of test-time augmentation are put right before their mean is taken.
        """
        return 0.0 if self.tta else self.model_for(prediction).card.map_offset

    def model_for(self, prediction: Prediction) -> Classifier:
        """The classifier that made a prediction of this one's: itself, or its fallback model."""
        return (prediction.in_distribution is False and self.fallback) or self

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
        processor from the file to the prediction, which leaves none waiting for another. A batch is
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

    def outputs(self, batch: ImageArray) -> ModelOutputs:
        """The graph's outputs for preprocessed images (N,S,S,3) uint8; see Engine."""
        return self.engine.outputs(batch)

    @cached_property
    def fallback(self) -> Classifier | None:
        """The fallback model, for images out of distribution; loaded when first needed."""
        bundle = self._bundle.fallback
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
        predictions = iter(
            self._predict_with_fallback(paths, np.stack(loaded), class_maps) if loaded else ()
        )
        noted = (
            replace(prediction, notice=notice) if notice else prediction
            for prediction, notice in zip(predictions, notices, strict=True)
        )
        return [
            Prediction(_path(image), None, None, {}, failures[position])
            if position in failures
            else next(noted)
            for position, image in enumerate(batch)
        ]

    def _predict_with_fallback(
        self, paths: list[str | None], images: ImageArray, class_maps: bool
    ) -> list[Prediction]:
        """Predictions of preprocessed images (N,S,S,3), unlike ones by the fallback."""
        predictions = list(self._predict_batch(paths, images, class_maps))
        ood_rows = [
            row for row, prediction in enumerate(predictions) if prediction.in_distribution is False
        ]
        if ood_rows and self.fallback is not None:
            paths = [paths[row] for row in ood_rows]
            replacements = self.fallback._predict_batch(paths, images[ood_rows], class_maps)
            for row, other in zip(ood_rows, replacements, strict=True):
                first = predictions[row]
                reasons = (
                    OUT_OF_DISTRIBUTION,
                    *(why for why in other.review_reasons if why != OUT_OF_DISTRIBUTION),
                )
                predictions[row] = replace(
                    other,
                    ood_score=first.ood_score,
                    in_distribution=False,
                    review=True,
                    review_reasons=reasons,
                )
        return predictions

    def _predict_batch(
        self, paths: list[str | None], images: ImageArray, class_maps: bool
    ) -> Iterator[Prediction]:
        """Predictions of preprocessed images (N,S,S,3)."""
        outputs = self.outputs(images)
        probabilities = softmax(outputs.logits, self.card.temperature)
        uncertainty, names = self.card.uncertainty, self.card.classes.names
        several = outputs.members.shape[1] > 1
        parting = disagreement(outputs.members, self.card.temperature) if several else None
        assessment = (
            None
            if uncertainty is None
            else assess(
                uncertainty, probabilities, outputs.features, outputs.style_statistics, images
            )
        )
        for row, best in enumerate(probabilities.argmax(axis=1)):
            yield Prediction(
                path=paths[row],
                label=names[best],
                probability=float(probabilities[row, best]),
                probabilities=dict(zip(names, probabilities[row].tolist(), strict=True)),
                disagreement=None if parting is None else float(parting[row]),
                class_map=outputs.class_map[row] if class_maps else None,
                **({} if assessment is None else _uncertainty_fields(assessment, row, names)),
            )


def _uncertainty_fields(assessment: Assessment, row: int, names: tuple[str, ...]) -> dict[str, Any]:
    """What a Prediction says of itself."""
    return {
        "prediction_set": tuple(itertools.compress(names, assessment.sets[row])),
        "class_conditional_set": tuple(itertools.compress(names, assessment.class_sets[row])),
        "ood_score": float(assessment.ood_scores[row]),
        "in_distribution": bool(assessment.ood_scores[row] <= 1),
        "review": bool(assessment.reasons[row]),
        "review_reasons": assessment.reasons[row],
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
