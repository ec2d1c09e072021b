"""MorphologyModel: features → attributes and subtypes, beside the class logits, with numpy.

Each question is a linear layer on the features that the class logits are linear in, with a softmax
over its own values and a temperature of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hemascope.arrays import AnyFloatArray, BoolArray, FloatArray
from hemascope.predictions import AttributePrediction
from hemascope.uncertainty.confusion import Confusion
from hemascope.uncertainty.temperature import softmax

CONTRADICTION = "its attributes contradict its class"


@dataclass(frozen=True)
class SoftmaxLayer:
    """A question and its answers: features (N,F) → probabilities (N,V) of the `values`.

    `weight` (V,F) and `bias` (V,); `name` is an attribute's, or the class whose subtypes are told.
    """

    name: str
    values: tuple[str, ...]
    weight: FloatArray
    bias: FloatArray
    temperature: float = 1.0

    def logits(self, features: AnyFloatArray) -> FloatArray:
        """Features (N,F) → logits (N,V)."""
        return np.asarray(np.asarray(features, np.float64) @ self.weight.T + self.bias)

    def __call__(self, features: AnyFloatArray) -> FloatArray:
        return softmax(self.logits(features), self.temperature)


@dataclass(frozen=True)
class Looks:
    """How the cells of each class look: `chances` (C,V) of all attributes' values, side by side.

    They are of the `classes` whose cells were described, and only theirs are described. The looks
    of a cell contradict its class where the class's probability, given the looks alone and classes
    of equal frequency, is less than `least`.
    """

    classes: tuple[str, ...]
    chances: FloatArray
    least: float

    def given_looks(self, answers: Sequence[FloatArray]) -> FloatArray:
        """Probabilities (N,V) of each attribute → of each class (N,C), given the looks alone.

        Attributes are taken to be independent within a class, as in a naive Bayes classifier.
        """
        ends = np.cumsum([answer.shape[1] for answer in answers])[:-1]
        parts = np.split(self.chances, ends, axis=1)
        pairs = zip(answers, parts, strict=True)
        return softmax(np.sum([np.log(answer @ part.T) for answer, part in pairs], axis=0))


@dataclass(frozen=True)
class MorphologyModel:
    """What a bundle says of a cell besides its class.

    `fitted_on` names the cells that it was fitted on, `images` of them. `looks` is None where there
    are no attributes. `subtypes` holds a layer for each class that has some. `confusion` says how
    cells that the layers were not fitted on are named, in the order of `names_told`.
    """

    fitted_on: str
    images: int
    attributes: tuple[SoftmaxLayer, ...] = ()
    looks: Looks | None = None
    subtypes: tuple[SoftmaxLayer, ...] = ()
    confusion: Confusion | None = None

    def names_told(self, class_names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """All names that a cell can get, (class, name): the class's own, or those of its subtypes.

        In the order of the classes and of the values of their layers.
        """
        told = {layer.name: layer.values for layer in self.subtypes}
        return tuple((each, name) for each in class_names for name in told.get(each, (each,)))


class Morphology(NamedTuple):
    """Of N images: attributes, the probabilities of subtypes, the likeliest subtype of the class
    that is named, and whether these contradict that class."""

    attributes: list[tuple[AttributePrediction, ...]]
    subtypes: list[dict[str, float]]
    subtype: list[str | None]
    contradicts: BoolArray


def describe_cells(
    model: MorphologyModel, features: AnyFloatArray, probabilities: FloatArray, names: Sequence[str]
) -> Morphology:
    """What the cells of N images look like: features (N,F), probabilities (N,C) of classes."""
    named = [names[best] for best in probabilities.argmax(axis=1)]
    attributes, contradicts = _describe(model, features, named)
    subtypes: list[dict[str, float]] = [{} for _ in named]
    likeliest: list[str | None] = [None] * len(named)
    for layer in model.subtypes:
        if layer.name not in names:
            continue
        within = layer(features)
        shares = within * probabilities[:, [list(names).index(layer.name)]]
        for row, (share, best) in enumerate(zip(shares, within.argmax(axis=1), strict=True)):
            subtypes[row] |= dict(zip(layer.values, share.tolist(), strict=True))
            if named[row] == layer.name:
                likeliest[row] = layer.values[best]
    return Morphology(attributes, subtypes, likeliest, contradicts)


def _describe(
    model: MorphologyModel, features: AnyFloatArray, named: Sequence[str]
) -> tuple[list[tuple[AttributePrediction, ...]], BoolArray]:
    """The attributes of cells whose class has been described, and whether they contradict it."""
    contradicts = np.zeros(len(named), dtype=bool)
    if model.looks is None:
        return [()] * len(named), contradicts
    answers = [layer(features) for layer in model.attributes]
    known = np.array([name in model.looks.classes for name in named], dtype=bool)
    given = model.looks.given_looks(answers)
    for row in np.flatnonzero(known).tolist():
        contradicts[row] = given[row, model.looks.classes.index(named[row])] < model.looks.least
    columns = [
        [
            AttributePrediction(layer.name, layer.values[best], float(answer[row, best]))
            for row, best in enumerate(answer.argmax(axis=1))
        ]
        for layer, answer in zip(model.attributes, answers, strict=True)
    ]
    described = zip(known, zip(*columns, strict=True), strict=True)
    return [row if is_known else () for is_known, row in described], contradicts
