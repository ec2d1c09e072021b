"""ExtraColumns: what a table has besides its usual columns, where it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hemascope.attributes import describe
from hemascope.bundle.card import Card
from hemascope.predictions import Prediction


@dataclass(frozen=True)
class ExtraColumns:
    """The names of the attributes and of the subtypes that have columns of their own.

    An attribute has two: <name>, its likeliest value, and <name>_p, the probability of that.
    `description` says in words what the attributes come to. `subtype` is the likeliest subtype of
    the class that is named, and ps_<subtype> is the probability of each.
    """

    attributes: tuple[str, ...] = ()
    subtypes: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, type]:
        """The columns by their types."""
        found: dict[str, type] = {}
        if self.attributes:
            found["description"] = str
        for name in self.attributes:
            found |= {name: str, f"{name}_p": float}
        if self.subtypes:
            found["subtype"] = str
        return found | {f"ps_{name}": float for name in self.subtypes}

    def values(self, prediction: Prediction) -> dict[str, Any]:
        """A Prediction's values in these columns; None where it says nothing."""
        found: dict[str, Any] = dict.fromkeys(self.columns)
        if self.attributes and prediction.attributes:
            found["description"] = describe(prediction.attributes)
        for attribute in prediction.attributes if self.attributes else ():
            found[attribute.name] = attribute.value
            found[f"{attribute.name}_p"] = attribute.probability
        if self.subtypes:
            found["subtype"] = prediction.subtype
            found |= {f"ps_{name}": prediction.subtypes.get(name) for name in self.subtypes}
        return found


NO_EXTRA = ExtraColumns()


def choose_columns(card: Card, attributes: bool, subtypes: bool) -> ExtraColumns:
    """The columns that are asked for. Raises ValueError for a model that cannot fill them."""
    model = card.morphology
    of_attributes = () if model is None else tuple(layer.name for layer in model.attributes)
    of_subtypes = () if model is None else tuple(v for x in model.subtypes for v in x.values)
    for asked, found, word in (
        (attributes, of_attributes, "attributes"),
        (subtypes, of_subtypes, "subtypes"),
    ):
        if asked and not found:
            raise ValueError(
                f"'{card.name}' tells no {word}; leave --{word} out, or make a bundle that does "
                "with 'hemascope fit-morphology'"
            )
    return ExtraColumns(of_attributes if attributes else (), of_subtypes if subtypes else ())
