"""Engine: preprocessed images (N,S,S,3) uint8 → what a bundle's graph gives, on onnxruntime."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hemascope.arrays import Float32Array, ImageArray
from hemascope.bundle.bundle import CARD_FILE, MODEL_FILE, Bundle
from hemascope.bundle.session import Session
from hemascope.bundle.tta import average_maps, symmetries
from hemascope.errors import BundleError
from hemascope.processors import count_processors

GPUS = {"TensorrtExecutionProvider", "CUDAExecutionProvider", "ROCMExecutionProvider"}

OLD_NAMES = {"style_statistics": "texture"}  # in graphs that were exported for bundle format 1


class ModelOutputs(NamedTuple):
    """What the graph says of a batch: logits (N,C), features (N,F), class_map, texture (N,T)."""

    logits: Float32Array
    features: Float32Array
    class_map: Float32Array  # (N,C,h,w)
    style_statistics: Float32Array
    members: Float32Array  # (N,M,C), logits of an ensemble's members


class Engine:
    """A bundle's graph, loaded and ready. Safe to share between threads.

    `threads` is how many processors it may use, by default as many as the process may. With `tta`
    (test-time augmentation) its outputs are means over the eight symmetries of the square. Raises
    BundleError for a graph that cannot be loaded, or does not fit the card, and ValueError for
    fewer than one processor.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, tta: bool = False) -> None:
        self.card, self.tta = bundle.card, tta
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self.threads = threads or count_processors()
        try:
            self._session = Session(bundle.model, self.threads)
        except Exception as error:  # onnxruntime has no common error class
            first_line = str(error).splitlines()[0]
            raise BundleError(f"{MODEL_FILE} cannot be loaded: {first_line}") from None
        self._names = self._check_fit()

    @property
    def uses_gpu(self) -> bool:
        return bool(GPUS & set(self._session.providers))

    def outputs(self, batch: ImageArray) -> ModelOutputs:
        """The graph's outputs for preprocessed images (N,S,S,3) uint8; with `tta`, their means."""
        return self.tta_outputs(batch) if self.tta else self._run(batch)

    def tta_outputs(self, batch: ImageArray) -> ModelOutputs:
        """Means of the graph's outputs over the eight symmetries of images (N,S,S,3) uint8.

        What a place of these class maps shows lies at that place: they have no offset.
        """
        views = [self._run(view) for view in symmetries(batch)]
        members = np.concatenate([view.members for view in views], axis=1)
        return ModelOutputs(
            logits=members.mean(axis=1),
            features=np.mean([view.features for view in views], axis=0),
            class_map=average_maps([view.class_map for view in views], self.card.map_offset),
            style_statistics=np.mean([view.style_statistics for view in views], axis=0),
            members=members,
        )

    def _run(self, batch: ImageArray) -> ModelOutputs:
        return ModelOutputs(*self._session.run(self._names, {"images": batch}))

    def _check_fit(self) -> list[str]:
        """The names that the graph has for ModelOutputs. Raises BundleError for another graph."""
        size, num_classes = self.card.input.size, len(self.card.classes)
        inputs = {name: shape[1:] for name, shape in self._session.input_shapes().items()}
        outputs = {name: shape[1:] for name, shape in self._session.output_shapes().items()}
        names = [
            name if name in outputs else OLD_NAMES.get(name, name) for name in ModelOutputs._fields
        ]
        fits = inputs == {"images": [size, size, 3]} and outputs.get("logits") == [num_classes]
        if not fits or not outputs.keys() >= set(names):
            raise BundleError(
                f"{MODEL_FILE} does not fit {CARD_FILE}: it must take images of {size} pixels and "
                f"give {', '.join(ModelOutputs._fields)} of {num_classes} classes; "
                "export the bundle again"
            )
        return names
