"""What a Classifier does with batch after batch: load it, and predict or embed its images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from hemascope.arrays import Float32Array, ImageArray
from hemascope.errors import ImageError
from hemascope.inference.given import Images, each_image
from hemascope.inference.images import image_id_of, load_batch, region_of
from hemascope.inference.order import map_ahead, split_batches
from hemascope.inference.predict import (
    failed_prediction,
    is_referred,
    join_statements,
    predict_batch,
)
from hemascope.predictions import Prediction
from hemascope.preprocess import ImageSource, View

if TYPE_CHECKING:
    from hemascope.inference.classifier import Classifier

T = TypeVar("T")
Batch: TypeAlias = "Sequence[ImageSource | View]"

ON_PROCESSORS, ON_GPU = 8, 64  # images in a batch; larger ones are no faster on processors
AHEAD = 2  # batches per processor that may wait to be handed over in their order


def map_batches(
    classifier: Classifier,
    work: Callable[[Classifier, Batch], Sequence[T]],
    images: Images,
    batch_size: int | None = None,
) -> Iterator[T]:
    """What `work` gives for each image, in order.

    One batch is worked on by all processors together. Of several, each processor takes one from
    file to result, so that none waits for another.
    """
    size = batch_size or (ON_GPU if classifier.engine.uses_gpu else ON_PROCESSORS)
    batches = split_batches(each_image(images), size)
    first = list(itertools.islice(batches, 2))
    if len(first) < 2:
        for batch in first:
            yield from work(classifier, batch)
        return
    alone = partial(work, classifier.on_one_processor)
    ahead = AHEAD * classifier.threads
    with ThreadPoolExecutor(classifier.threads) as pool:
        for results in map_ahead(pool, alone, itertools.chain(first, batches), ahead):
            yield from results


def predict_images(
    classifier: Classifier, batch: Batch, class_maps: bool, um_per_pixel: float | None
) -> list[Prediction]:
    """One Prediction per image of a batch, by the fallback model where it is referred to that."""
    card = classifier.card
    loaded, failures, notices = load_batch(batch, card.input, um_per_pixel)
    made = iter(predict_loaded(classifier, np.stack(loaded), class_maps) if loaded else ())
    return [
        replace(
            failed_prediction(card, failures[index]) if index in failures else next(made),
            image_id=image_id_of(image),
            region=region_of(image, um_per_pixel),
            notice=notices.get(index, ""),
        )
        for index, image in enumerate(batch)
    ]


def embed_images(
    classifier: Classifier, batch: Batch, um_per_pixel: float | None
) -> Sequence[Float32Array]:
    """The features (F,) of each image of a batch. Raises ImageError for one that is unreadable."""
    loaded, failures, _ = load_batch(batch, classifier.card.input, um_per_pixel)
    for index, why in failures.items():
        raise ImageError(f"{image_id_of(batch[index]) or 'an image'}: {why}")
    return list(classifier.outputs(np.stack(loaded)).features)


def check_read(predictions: Sequence[Prediction]) -> None:
    """Raises ImageError for the first image that could not be read."""
    for index, prediction in enumerate(predictions):
        if prediction.label is None:
            raise ImageError(f"{prediction.image_id or f'image {index}'}: {prediction.status}")


def predict_loaded(
    classifier: Classifier, images: ImageArray, class_maps: bool
) -> list[Prediction]:
    """Predictions of preprocessed images (N,S,S,3)."""
    predictions, home = predict_batch(classifier.engine, images, class_maps), classifier.home
    rows = [row for row, first in enumerate(predictions) if is_referred(first, home)]
    if rows and classifier.fallback is not None:
        others = predict_batch(classifier.fallback.engine, images[rows], class_maps)
        for row, other in zip(rows, others, strict=True):
            predictions[row] = join_statements(other, predictions[row])
    return predictions
