"""Prediction: what a model says of one image; with the place it looked at and its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hemascope.arrays import Float32Array


@dataclass(frozen=True)
class Region:
    """Where in an image a model looked, and at which scale.

    Parameters
    ----------
    centre
        The middle (x, y) of what the model saw, in pixels from the upper left corner of the upright
        image; None for the middle of the image.
    um_per_pixel
        How many micrometres a pixel of the image is wide; None for an image of the same scale as
        the training images.

    Examples
    --------
    >>> from hemascope import Classifier, View
    >>> from hemascope.data.synthetic import draw_cell
    >>> view = View(draw_cell("monocyte", seed=1), um_per_pixel=0.1, centre=(180, 180))
    >>> (prediction,) = Classifier().predict(view)
    >>> prediction.region
    Region(centre=(180, 180), um_per_pixel=0.1)
    """

    centre: tuple[float, float] | None = None
    um_per_pixel: float | None = None


SIMILAR, UNKNOWN = "similar to ", "unknown, nearest "  # before a laboratory's name


@dataclass(frozen=True)
class Laboratory:
    """Which laboratory an image's stain, light and camera are like. It says nothing of the cell.

    Parameters
    ----------
    nearest
        The known laboratory that the image is most like.
    distance
        How far the image is from that laboratory's own, of which 99 % are at most 1 away.

    Examples
    --------
    >>> from hemascope.predictions import Laboratory
    >>> print(Laboratory("pbc", 0.6), Laboratory("pbc", 1.5), Laboratory("pbc", 4.0), sep="; ")
    pbc; similar to pbc; unknown, nearest pbc
    """

    nearest: str
    distance: float

    @property
    def status(self) -> Literal["known", "similar", "unknown"]:
        """Known up to a distance of 1, similar up to 2, and unknown beyond."""
        if self.distance <= 1:
            return "known"
        return "similar" if self.distance <= 2 else "unknown"

    def __str__(self) -> str:
        return {"known": "", "similar": SIMILAR, "unknown": UNKNOWN}[self.status] + self.nearest


@dataclass(frozen=True)
class Uncertainty:
    """How far a prediction of a calibrated model can be trusted.

    Parameters
    ----------
    prediction_set
        Classes that can be meant. The right class is among them for 95 % of cells like those that
        the model was calibrated on. The set can be empty.
    class_conditional_set
        The same, but the 95 % hold within each class.
    ood_score
        How unlike the cells of the training images the cell is; above 1 it counts as out of
        distribution. Of a bundle that knows no laboratories, stain and camera count too.
    in_distribution
        Whether the score is at most 1.
    review
        Whether a person should look at the image.
    review_reasons
        Why, in words; empty where nobody needs to look.
    laboratory
        Which laboratory the image is like; None of a bundle that knows no laboratories.

    Examples
    --------
    >>> import numpy as np
    >>> from hemascope import Classifier
    >>> from hemascope.data.synthetic import draw_cell
    >>> (prediction,) = Classifier().predict(draw_cell("basophil", seed=1))
    >>> prediction.uncertainty.in_distribution, prediction.uncertainty.review
    (True, False)
    >>> grey = Classifier().predict(np.full((200, 200, 3), 128, dtype=np.uint8))[0]
    >>> grey.uncertainty.review_reasons
    ('several classes possible', 'unlike the training cells', 'no cell in the image')
    >>> print(grey.uncertainty.laboratory)
    unknown, nearest bccd
    """

    prediction_set: tuple[str, ...]
    class_conditional_set: tuple[str, ...]
    ood_score: float
    in_distribution: bool
    review: bool
    review_reasons: tuple[str, ...]
    laboratory: Laboratory | None = None


@dataclass(frozen=True)
class AttributePrediction:
    """What a model says of one attribute of a cell, such as the shape of its nucleus.

    Parameters
    ----------
    name
        The attribute, as `hemascope.attributes.ATTRIBUTES` names it.
    value
        Its most probable value.
    probability
        The probability of that value, calibrated.

    Examples
    --------
    >>> from hemascope.predictions import AttributePrediction
    >>> AttributePrediction("nucleus_shape", "unsegmented-band", 0.9).value
    'unsegmented-band'
    """

    name: str
    value: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Parameters
    ----------
    image_id
        Path or address of the image; None for an image that was given as pixels or bytes.
    label
        The most probable class; None for an image that could not be read.
    probability
        Its probability; None for an image that could not be read.
    probabilities
        The probability of each class, calibrated where the model is; empty for an image that could
        not be read.
    status
        "ok", or what was wrong with the image.
    region
        Where in the image the model looked; None for the middle of an image of the same scale as
        the training images.
    model, model_sha256
        Name of the model that made the prediction, and the SHA-256 of its model.onnx. It is the
        fallback model for an image out of distribution, where the bundle has one.
    uncertainty
        How far the prediction can be trusted; None where the model is not calibrated or the image
        could not be read.
    notice
        Which of a file's pages was read; empty for a file of one image.
    disagreement
        How far the members of an ensemble, or the views of test-time augmentation, disagree, in
        nats; None without several.
    attributes
        What the cell looks like, attribute by attribute. Empty where the model knows no attributes,
        or none of cells of this class.
    subtype
        The most probable subtype of the class that is the label; None where it has none.
    subtypes
        The probability of each subtype of each class that has some; those of a class sum to the
        probability of the class. Empty where the model knows no subtypes.
    class_map
        (C,h,w) float32, one map per class, whose mean over the image is the class's logit up to
        the bias; None unless it was asked for.

    Examples
    --------
    >>> from hemascope import Classifier
    >>> from hemascope.data.synthetic import draw_cell
    >>> (prediction,) = Classifier().predict(draw_cell("platelet", seed=0))
    >>> prediction.label in prediction.probabilities
    True
    >>> prediction.status
    'ok'
    """

    image_id: str | None
    label: str | None
    probability: float | None
    probabilities: dict[str, float]
    status: str = "ok"
    region: Region | None = None
    model: str = ""
    model_sha256: str = ""
    uncertainty: Uncertainty | None = None
    notice: str = ""
    disagreement: float | None = None
    attributes: tuple[AttributePrediction, ...] = ()
    subtypes: dict[str, float] = field(default_factory=dict)
    subtype: str | None = None
    class_map: Float32Array | None = field(default=None, compare=False, repr=False)

    @property
    def two_likeliest(self) -> list[str]:
        """The two most probable classes, best first; empty for an image that could not be read."""
        chances = self.probabilities
        return sorted(chances, key=lambda name: -chances[name])[:2]
