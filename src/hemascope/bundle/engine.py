"""Engine: preprocessed images (N,S,S,3) uint8 → what a bundle's graph gives, on onnxruntime."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import onnxruntime

from hemascope.arrays import Float32Array, ImageArray
from hemascope.bundle.bundle import CARD_FILE, MODEL_FILE, Bundle, BundleError
from hemascope.bundle.tta import symmetries, turned_back

GPUS = {"TensorrtExecutionProvider", "CUDAExecutionProvider", "ROCMExecutionProvider"}


class Scores(NamedTuple):
    """What the graph says of a batch: logits (N,C), features (N,F), class_map, texture (N,T)."""

    logits: Float32Array
    features: Float32Array
    class_map: Float32Array  # (N,C,h,w)
    texture: Float32Array
    members: Float32Array  # (N,M,C), logits of an ensemble's members


class Engine:
    """A bundle's graph, loaded and ready. Safe to share between threads.

    `threads` is how many processors it may use, by default all. With `tta` (test-time
    augmentation) its outputs are means over the eight symmetries of the square. Raises
    BundleError for a graph that cannot be loaded, or does not fit the card.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, tta: bool = False) -> None:
        self.card, self.tta = bundle.card, tta
        self.threads = threads or os.cpu_count() or 1
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        self._providers = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                bundle.model, options, providers=self._providers
            )
        except Exception as error:  # onnxruntime has no common error class
            first_line = str(error).splitlines()[0]
            raise BundleError(f"{MODEL_FILE} cannot be loaded: {first_line}") from None
        self._check_fit()

    @property
    def uses_gpu(self) -> bool:
        return bool(GPUS & set(self._providers))

    def scores(self, batch: ImageArray) -> Scores:
        """The graph's outputs for preprocessed images (N,S,S,3) uint8; with `tta`, their means."""
        return self.eight_looks(batch) if self.tta else self._run(batch)

    def eight_looks(self, batch: ImageArray) -> Scores:
        """Means of the graph's outputs over the eight symmetries of images (N,S,S,3) uint8.

        What a place of these class maps shows lies at that place: they have no offset.
        """
        views = [self._run(view) for view in symmetries(batch)]
        members = np.concatenate([view.members for view in views], axis=1)
        return Scores(
            logits=members.mean(axis=1),
            features=np.mean([view.features for view in views], axis=0),
            class_map=turned_back([view.class_map for view in views], self.card.map_offset),
            texture=np.mean([view.texture for view in views], axis=0),
            members=members,
        )

    def _run(self, batch: ImageArray) -> Scores:
        return Scores(*self._session.run(Scores._fields, {"images": batch}))

    def _check_fit(self) -> None:
        size, num_classes = self.card.input.size, len(self.card.classes)
        taken = {node.name: node.shape[1:] for node in self._session.get_inputs()}
        given = {node.name: node.shape[1:] for node in self._session.get_outputs()}
        fits = taken == {"images": [size, size, 3]} and given.get("logits") == [num_classes]
        if not fits or not given.keys() >= set(Scores._fields):
            raise BundleError(
                f"{MODEL_FILE} does not fit {CARD_FILE}: it must take images of {size} pixels and "
                f"give {', '.join(Scores._fields)} of {num_classes} classes; "
                "export the bundle again"
            )
