"""How a batch of images differs from those of the laboratory that the model is for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hemascope.batch.inputs import Item
from hemascope.batch.tally import Tally
from hemascope.inference.classifier import Classifier
from hemascope.inference.images import load_batch
from hemascope.uncertainty.image_style import describe_style

SAMPLE = 48  # images, evenly spread over the batch


def describe_images(
    classifier: Classifier, items: Sequence[Item], um_per_pixel: float | None, tally: Tally
) -> str:
    """In which ways the images differ, in words; empty for a known laboratory's.

    Up to 48 of them are read again: a continued run has not read those of its finished shards.
    """
    model = classifier.card.uncertainty
    if model is None or model.style is None or tally.is_known_laboratory:
        return ""
    places = np.unique(np.linspace(0, len(items) - 1, SAMPLE).round().astype(int))
    chosen = [items[place] for place in places]
    loaded, _, _ = load_batch(chosen, classifier.card.input, um_per_pixel)
    return describe_style(np.stack(loaded), model.style) if loaded else ""
