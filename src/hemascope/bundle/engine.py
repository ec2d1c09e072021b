"""Engine: preprocessed images (N,S,S,3) uint8 → what a bundle's graph gives, on onnxruntime."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hemascope.arrays import Float32Array, ImageArray
from hemascope.bundle.bundle import MODEL_FILE, Bundle
from hemascope.bundle.card import CARD_FILE
from hemascope.bundle.graph_check import check_graph
from hemascope.bundle.session import Session
from hemascope.bundle.tta import average_maps, symmetries
from hemascope.errors import BundleError
from hemascope.processors import choose_threads

GPUS = {"TensorrtExecutionProvider", "CUDAExecutionProvider", "ROCMExecutionProvider"}


class ModelOutputs(NamedTuple):
    """What the graph gives for a batch of N images."""

    logits: Float32Array  # (N,C)
    features: Float32Array  # (N,F), which the last layer is linear in
    class_map: Float32Array  # (N,C,h,w)
    style_statistics: Float32Array  # (N,T), means and deviations of early feature maps
    members: Float32Array  # (N,M,C), logits of an ensemble's members


class Engine:
    """A bundle's graph, loaded on onnxruntime. Threads can share it.

    `threads` is how many processors it may use, by default as many as the process may. With `tta`
    (test-time augmentation) its outputs are means over the eight symmetries of the square. Raises
    BundleError for a graph that cannot be loaded, or does not fit the card, and ValueError for
    fewer than one processor.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, tta: bool = False) -> None:
        self.card, self.tta = bundle.card, tta
        self.threads = choose_threads(threads)
        check_graph(bundle.model, self.card.input.size)
        try:
            self._session = Session(bundle.model, self.threads)
        except Exception as error:  # onnxruntime has no common error class
            raise BundleError(f"{MODEL_FILE} cannot be loaded: {_first_line(error)}") from None
        self._check_fit()

    @property
    def uses_gpu(self) -> bool:
        """Whether onnxruntime computes on a GPU."""
        return bool(GPUS & set(self._session.providers))

    def outputs(self, batch: ImageArray) -> ModelOutputs:
        """The graph's outputs for preprocessed images (N,S,S,3) uint8; with `tta`, their means."""
        return self.tta_outputs(batch) if self.tta else self._run(batch)

    def tta_outputs(self, batch: ImageArray) -> ModelOutputs:
        """Means of the graph's outputs over the eight symmetries of images (N,S,S,3) uint8.

        These class maps are not shifted against the image: their `map_offset` is 0.
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
        try:
            found = ModelOutputs(*self._session.run(self.card.outputs, {"images": batch}))
        except Exception as error:  # onnxruntime has no common error class
            raise BundleError(
                f"'{self.card.name}' cannot be computed: {_first_line(error)}; "
                "export the bundle again"
            ) from None
        found = self._choose_columns(found)
        self._check_outputs(found, len(batch))
        return found

    def _choose_columns(self, found: ModelOutputs) -> ModelOutputs:
        """The outputs for the classes on the card alone."""
        if self.card.columns is None:
            return found
        columns = list(self.card.columns)
        return found._replace(
            logits=found.logits[:, columns],
            class_map=found.class_map[:, columns],
            members=found.members[:, :, columns],
        )

    def _check_outputs(self, found: ModelOutputs, n: int) -> None:
        """Raises BundleError for outputs of other shapes than a prediction needs, or not finite."""
        shapes: list[tuple[int, ...]] = [output.shape for output in found]
        num_classes, model = len(self.card.classes), self.card.uncertainty
        _, features, class_map, style, members = shapes
        if model is not None:
            features = model.ood_detector.directions.means.shape
            detector = model.ood_detector
            style = style if detector.style is None else detector.style.means.shape
        expected = [
            (n, num_classes),
            (n, *features[-1:]),
            (n, num_classes, *class_map[-1:] * 2),
            (n, *style[-1:]),
            (n, *members[-2:-1], num_classes),
        ]
        for name, output, wanted in zip(found._fields, found, expected, strict=True):
            if output.shape != wanted or (n and not output.size):
                raise BundleError(
                    f"'{self.card.name}' gave {name} of shape {output.shape}, which does not fit "
                    f"{CARD_FILE}; export the bundle again"
                )
            if not np.isfinite(output).all():
                raise BundleError(
                    f"'{self.card.name}' gave {name} that are not finite numbers: "
                    "its weights are damaged; use another bundle"
                )

    def _check_fit(self) -> None:
        """Raises BundleError for a graph that does not fit the card."""
        size, num_classes = self.card.input.size, len(self.card.classes)
        inputs = {name: shape[1:] for name, shape in self._session.input_shapes().items()}
        outputs = {name: shape[1:] for name, shape in self._session.output_shapes().items()}
        names, logits = self.card.outputs, outputs.get(self.card.outputs[0])
        if self.card.columns is not None and logits is not None and len(logits) == 1:
            enough = isinstance(logits[0], int) and max(self.card.columns) < logits[0]
            logits = [num_classes] if enough else logits
        fits = inputs == {"images": [size, size, 3]} and len(names) == len(ModelOutputs._fields)
        if not fits or logits != [num_classes] or not outputs.keys() >= set(names):
            raise BundleError(
                f"{MODEL_FILE} does not fit {CARD_FILE}: it must take images of {size} pixels and "
                f"give {', '.join(names)} of {num_classes} classes; export the bundle again"
            )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
