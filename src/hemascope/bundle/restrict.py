"""A bundle that chooses among some of its classes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Card
from hemascope.classes import ClassSet
from hemascope.errors import BundleError
from hemascope.uncertainty.model import UncertaintyModel


def restrict_classes(bundle: Bundle, names: Sequence[str]) -> Bundle:
    """The bundle for a laboratory that knows which classes occur.

    Probabilities, prediction sets and out-of-distribution scores are of these classes alone: a cell
    of a class that is left out is unlike the known cells, if the network can tell. The metrics and
    the confusion on the card, which are of all classes, are left out, and so is what an adapted
    bundle keeps of its cells, and what a bundle says of attributes and subtypes.

    Parameters
    ----------
    bundle
        The model, such as `Classifier().bundle`.
    names
        The classes that occur, by their names or aliases, at least two.

    Returns
    -------
    Bundle
        The order of the classes stays as it is.

    Raises
    ------
    BundleError
        For a class that the bundle does not have, or fewer than two.

    Examples
    --------
    >>> from hemascope import Classifier, restrict_classes
    >>> bundle = restrict_classes(Classifier().bundle, ["neutrophil", "lymphocyte"])
    >>> bundle.card.classes.names
    ('lymphocyte', 'neutrophil')
    """
    known = bundle.card.classes
    chosen = []
    for name in names:
        if name not in known:
            raise BundleError(
                f"'{name}' is no class of '{bundle.card.name}', whose classes are "
                f"{', '.join(known.names)}"
            )
        chosen.append(known.index(name))
    places = sorted(set(chosen))
    if len(places) < 2:
        raise BundleError("a classifier chooses among at least two classes; name more of them")
    fallback = bundle.fallback and restrict_classes(bundle.fallback, names)
    return Bundle(_restrict_card(bundle.card, places), bundle.model, fallback)


def _restrict_card(card: Card, places: list[int]) -> Card:
    columns = card.columns or tuple(range(len(card.classes)))
    model = card.uncertainty
    return replace(
        card,
        classes=ClassSet(tuple(card.classes.classes[place] for place in places)),
        columns=tuple(columns[place] for place in places),
        uncertainty=None if model is None else _restrict_uncertainty(model, places),
        confusion=None,
        metrics=(),
        adaptation=None,
        morphology=None,
    )


def _restrict_uncertainty(model: UncertaintyModel, places: list[int]) -> UncertaintyModel:
    detector = model.ood_detector
    if len(detector.directions.means) == len(model.class_thresholds):
        means = detector.directions.means[places]
        detector = replace(detector, directions=replace(detector.directions, means=means))
    if detector.style is not None and len(detector.style.means) > len(places):
        style = replace(detector.style, means=detector.style.means[places])
        detector = replace(detector, style=style)
    thresholds = tuple(model.class_thresholds[place] for place in places)
    return replace(model, class_thresholds=thresholds, ood_detector=detector)
