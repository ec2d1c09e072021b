"""Classifier: images → Predictions, on onnxruntime, numpy and pillow alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hemascope.arrays import Float32Array, FloatArray, ImageArray
from hemascope.bundle.bundle import Bundle, find_bundle, read_bundle, write_bundle
from hemascope.bundle.engine import Engine, ModelOutputs
from hemascope.inference.batches import check_read, embed_images, map_batches, predict_images
from hemascope.inference.given import Images
from hemascope.predictions import Prediction


class Classifier:
    """A bundle, loaded and ready to classify. Threads can share it.

    An image out of distribution is predicted by the fallback model, where the bundle has one; the
    out-of-distribution score stays that of the bundle's own network. A classifier can be pickled
    and copied, and used in a process that was forked off.

    Parameters
    ----------
    bundle
        A Bundle or its folder; by default the one that comes with the package.
    threads
        How many processors to use; by default as many as the process may.
    tta
        Predict with the mean over the eight symmetries of each image; takes eight times as long.

    Raises
    ------
    BundleError
        For a bundle that cannot be used.
    ValueError
        For fewer than one processor.

    Examples
    --------
    >>> from hemascope import Classifier
    >>> from hemascope.data.synthetic import draw_cell
    >>> classifier = Classifier.from_pretrained("hemascope-pbc-5")
    >>> classifier.predict(draw_cell("neutrophil", seed=0))[0].status
    'ok'
    >>> classifier.predict_proba([draw_cell("ig", 0), draw_cell("platelet", 0)]).shape
    (2, 8)
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        threads: int | None = None,
        tta: bool = False,
    ):
        if not isinstance(bundle, Bundle):
            bundle = read_bundle(None if bundle is None else Path(bundle))
        self.bundle, self.card, self.tta = bundle, bundle.card, tta
        self._asked_threads = threads
        self.engine = Engine(bundle, threads, tta)
        self.threads = self.engine.threads

    def __reduce__(self) -> tuple[type[Classifier], tuple[Bundle, int | None, bool]]:
        """A copy, or what arrives in another process, is made anew of the bundle."""
        return Classifier, (self.bundle, self._asked_threads, self.tta)

    @classmethod
    def from_pretrained(
        cls, bundle: str | Path, threads: int | None = None, tta: bool = False
    ) -> Classifier:
        """A classifier by the name of a bundle, as `list_bundles` gives them, or by its folder.

        Nothing is downloaded. Raises BundleError for neither, or a bundle that cannot be used.
        """
        return cls(find_bundle(bundle), threads, tta)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the bundle, with its fallback model, into a folder. Raises OSError."""
        write_bundle(self.bundle, Path(folder))

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The class names (C,), in the order of the columns of `predict_proba`."""
        return np.array(self.card.classes.names)

    @cached_property
    def fallback(self) -> Classifier | None:
        """The fallback model, for images out of distribution; loaded when first needed."""
        bundle = self.bundle.fallback
        return None if bundle is None else Classifier(bundle, self.threads, self.tta)

    @property
    def home(self) -> str | None:
        """The laboratory that the bundle's own network is for; None where none is known."""
        model = self.card.uncertainty
        return None if model is None or model.laboratories is None else model.laboratories.names[0]

    def model_for(self, prediction: Prediction) -> Classifier:
        """The classifier that made a prediction of this one's: itself, or its fallback model."""
        fallback = self.bundle.fallback
        if fallback is None or fallback.card.model_sha256 != prediction.model_sha256:
            return self
        return self.fallback or self

    def outputs(self, batch: ImageArray) -> ModelOutputs:
        """The network's outputs for preprocessed images (N,S,S,3) uint8; see Engine."""
        return self.engine.outputs(batch)

    def predict(
        self, images: Images, class_maps: bool = False, um_per_pixel: float | None = None
    ) -> list[Prediction]:
        """One Prediction per image, in order; see `stream`."""
        return list(self.stream(images, class_maps, um_per_pixel=um_per_pixel))

    def predict_proba(self, images: Images, um_per_pixel: float | None = None) -> FloatArray:
        """The probabilities of N images, (N,C). Raises ImageError for one that cannot be read."""
        predictions = self.predict(images, um_per_pixel=um_per_pixel)
        check_read(predictions)
        rows = [list(prediction.probabilities.values()) for prediction in predictions]
        return np.array(rows).reshape(-1, len(self.card.classes))

    def embed(self, images: Images, um_per_pixel: float | None = None) -> Float32Array:
        """Features of N images, (N,F), which the last layer is linear in.

        They are the bundle's own network's, also for images out of distribution. Raises ImageError
        for an image that cannot be read, and ValueError without images.
        """
        work = partial(embed_images, um_per_pixel=um_per_pixel)
        rows = list(map_batches(self, work, images))
        if not rows:
            raise ValueError("no images were given to embed")
        return np.stack(rows)

    def stream(
        self,
        images: Images,
        class_maps: bool = False,
        batch_size: int | None = None,
        um_per_pixel: float | None = None,
    ) -> Iterator[Prediction]:
        """Predictions in the order of the images, which may be any number of them.

        An image is a path, an encoded file's bytes, an open file, a PIL image, an array, a tensor,
        or a View of one; `each_image` says what holds several. For one that
        cannot be read, the status says why. `um_per_pixel` is the width of a pixel in micrometres;
        None for the scale of the training images. Raises ValueError where it is out of range.
        """
        work = partial(predict_images, class_maps=class_maps, um_per_pixel=um_per_pixel)
        return map_batches(self, work, images, batch_size)

    @cached_property
    def on_one_processor(self) -> Classifier:
        """The same, for work that is done on several processors side by side."""
        return self if self.threads == 1 else Classifier(self.bundle, 1, self.tta)

    def __sklearn_tags__(self) -> Any:
        """Tells scikit-learn, which alone calls this, that it is a classifier."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags("classifier", TargetTags(required=True), classifier_tags=ClassifierTags())
