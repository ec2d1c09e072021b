"""Preprocessed images and one network → Predictions, which do not say yet what they are of."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hemascope.arrays import ImageArray
from hemascope.bundle.card import Card
from hemascope.bundle.engine import Engine
from hemascope.predictions import Prediction, Uncertainty
from hemascope.uncertainty.ensemble import disagreement
from hemascope.uncertainty.model import OUT_OF_DISTRIBUTION, Assessment, assess
from hemascope.uncertainty.morphology import CONTRADICTION, Morphology, describe_cells
from hemascope.uncertainty.temperature import softmax


def predict_batch(engine: Engine, images: ImageArray, class_maps: bool) -> list[Prediction]:
    """One Prediction per preprocessed image (N,S,S,3), in order."""
    card, outputs = engine.card, engine.outputs(images)
    probabilities = softmax(outputs.logits, card.temperature)  # (N,C)
    several = outputs.members.shape[1] > 1
    parting = disagreement(outputs.members, card.temperature) if several else None
    assessment = None
    if card.uncertainty is not None:
        features, style = outputs.features, outputs.style_statistics
        assessment = assess(card.uncertainty, probabilities, features, style, images)
    names = card.classes.names
    seen = None
    if card.morphology is not None:
        seen = describe_cells(card.morphology, outputs.features, probabilities, names)
    return [
        Prediction(
            image_id=None,
            label=names[best],
            probability=float(probabilities[row, best]),
            probabilities=dict(zip(names, probabilities[row].tolist(), strict=True)),
            model=card.name,
            model_sha256=card.model_sha256,
            uncertainty=None if assessment is None else _uncertainty(assessment, row, names, seen),
            disagreement=None if parting is None else float(parting[row]),
            attributes=() if seen is None else seen.attributes[row],
            subtypes={} if seen is None else seen.subtypes[row],
            subtype=None if seen is None else seen.subtype[row],
            class_map=outputs.class_map[row] if class_maps else None,
        )
        for row, best in enumerate(probabilities.argmax(axis=1))
    ]


def is_out_of_distribution(prediction: Prediction) -> bool:
    """Whether a calibrated model says that the cell is; of another it is not known."""
    uncertainty = prediction.uncertainty
    return uncertainty is not None and not uncertainty.in_distribution


def is_referred(prediction: Prediction, home: str | None) -> bool:
    """Whether a bundle's own network leaves an image to the fallback model.

    It does so with the images of any laboratory but `home`, the one that it is for; where no
    laboratories are known, with those that are out of distribution. Of a network that is not
    calibrated nothing is known, and it keeps all images.
    """
    uncertainty = prediction.uncertainty
    if uncertainty is None:
        return False
    laboratory = uncertainty.laboratory
    if laboratory is None:
        return not uncertainty.in_distribution
    return laboratory.status != "known" or laboratory.nearest != home


def failed_prediction(card: Card, reason: str) -> Prediction:
    """The Prediction of an image that cannot be read."""
    return Prediction(None, None, None, {}, reason, None, card.name, card.model_sha256)


def join_statements(other: Prediction, first: Prediction) -> Prediction:
    """The fallback model's prediction of an image that the `first` one referred to it.

    Where laboratories are known, the fallback model says whether the cell is unlike the known
    ones, since every image of another laboratory is unlike those of the first network. Where none
    are, the first network's score stands, and the image is sent to review.
    """
    assert first.uncertainty is not None
    assert other.uncertainty is not None  # a Bundle's fallback model is calibrated
    laboratory = first.uncertainty.laboratory
    if laboratory is not None:
        return replace(other, uncertainty=replace(other.uncertainty, laboratory=laboratory))
    own_reasons = (why for why in other.uncertainty.review_reasons if why != OUT_OF_DISTRIBUTION)
    uncertainty = replace(
        other.uncertainty,
        ood_score=first.uncertainty.ood_score,
        in_distribution=False,
        review=True,
        review_reasons=(OUT_OF_DISTRIBUTION, *own_reasons),
    )
    return replace(other, uncertainty=uncertainty)


def _uncertainty(
    assessment: Assessment, row: int, names: tuple[str, ...], seen: Morphology | None
) -> Uncertainty:
    reasons = assessment.reasons[row]
    if seen is not None and seen.contradicts[row]:
        reasons = (*reasons, CONTRADICTION)
    return Uncertainty(
        prediction_set=tuple(itertools.compress(names, assessment.sets[row])),
        class_conditional_set=tuple(itertools.compress(names, assessment.class_sets[row])),
        ood_score=float(assessment.ood_scores[row]),
        in_distribution=bool(assessment.ood_scores[row] <= 1),
        review=bool(reasons),
        review_reasons=reasons,
        laboratory=assessment.laboratories[row],
    )
