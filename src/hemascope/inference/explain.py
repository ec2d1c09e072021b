"""Where an image supports a class: class activation maps, searched masks, their overlays."""

from __future__ import annotations

from math import ceil

import numpy as np
from PIL import Image

from hemascope.arrays import Float32Array, FloatArray, ImageArray
from hemascope.inference.classifier import Classifier
from hemascope.inference.mask_search import search_mask
from hemascope.predictions import Prediction
from hemascope.preprocess import ground_colour
from hemascope.uncertainty.temperature import softmax

# Dark to bright through red and orange, so that it reads in black and white as well.
HEAT = np.array([(0, 0, 0), (120, 28, 109), (237, 105, 37), (252, 255, 164)], dtype=np.float32)


def evidence(class_map: Float32Array) -> Float32Array:
    """The positive part of one class's map (h,w), scaled to 0..1: where the image supports it."""
    positive: Float32Array = np.maximum(class_map, np.float32(0))
    top = max(float(positive.max()), 1e-12)
    return np.asarray(positive / np.float32(top), dtype=np.float32)


def resize_map(class_map: Float32Array, size: int, offset: float = 0.0) -> Float32Array:
    """One class's map (h,w) → its evidence at each pixel of the image, (S,S) in 0..1.

    The map is moved left and up by `offset` steps, which is the card's `map_offset`. The margin
    that this leaves at the right and below counts as no evidence.
    """
    margin = ceil(offset)
    coarse = Image.fromarray(np.pad(evidence(class_map), ((0, margin), (0, margin))))
    height, width = class_map.shape
    box = (offset, offset, width + offset, height + offset)
    fine = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return np.asarray(np.clip(fine, 0, 1), dtype=np.float32)


def overlay(
    image: ImageArray,
    class_map: Float32Array,
    offset: float = 0.0,
    opacity: float = 0.5,
) -> ImageArray:
    """The map (h,w) over the image (S,S,3) that it was computed from, as (S,S,3) uint8.

    `offset` is as in `resize_map`. The stronger the evidence, the more of the heat colour covers
    the cell.
    """
    heat = resize_map(class_map, len(image), offset)  # (S,S)
    stops = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(heat, stops, HEAT[:, channel]) for channel in range(3)], axis=2)
    share = opacity * heat[:, :, None]
    blended: FloatArray = image * (1 - share) + colours * share
    return np.rint(blended).astype(np.uint8)


def offset_of(classifier: Classifier, prediction: Prediction) -> float:
    """By how many steps the class map of a prediction is shifted, as in Card; 0 after TTA."""
    return 0.0 if classifier.tta else classifier.model_for(prediction).card.map_offset


def average_map(
    classifier: Classifier, image: ImageArray, prediction: Prediction, name: str
) -> Float32Array:
    """Where the preprocessed image (S,S,3) of a prediction supports a class, (S,S) in 0..1.

    The class activation map of the network that made the prediction, averaged over the eight
    symmetries of the square.
    """
    model = classifier.model_for(prediction)
    class_maps = model.engine.tta_outputs(image[None]).class_map[0]
    return resize_map(class_maps[model.card.classes.index(name)], len(image))


def search_map(
    classifier: Classifier, image: ImageArray, prediction: Prediction, name: str
) -> Float32Array:
    """The map that `search_mask` finds from `average_map`, (S,S).

    It shows the image some 1,900 times to the network that made the prediction. The search
    optimises the areas under the deletion and insertion curves, so these areas are no independent
    measure of the map.
    """
    model = classifier.model_for(prediction)
    of = model.card.classes.index(name)

    def probability(images: ImageArray) -> FloatArray:
        logits = model.outputs(images).logits
        return np.asarray(softmax(logits, model.card.temperature)[:, of])

    ground = np.empty_like(image)
    ground[:] = ground_colour(Image.fromarray(image))
    start = average_map(classifier, image, prediction, name)
    return search_mask(image, ground, start, probability).astype(np.float32)
