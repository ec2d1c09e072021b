"""How a count was made, in one paragraph."""

from __future__ import annotations

from hemascope.bundle.card import Card
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.flags import UNLIKE_COUNTED

UNSIGNED = "Nobody has signed this count."
DIGITS = 16  # of a SHA-256 that are shown


def describe_method(count: DifferentialCount, card: Card) -> str:
    """The networks and their hashes, the fields and cells, the scale, the rules and intervals."""
    return " ".join(
        [
            _describe_search(count),
            _describe_scale(count),
            "Cells that touch the left or upper border of a field count as its neighbour's.",
            *_describe_names(count, card),
            f"The {count.white} white cells are the denominator; erythroblasts and platelets are "
            "not among them.",
            "Intervals are exact 95 % binomial intervals (Clopper and Pearson); the corrected "
            "shares allow for the model's confusion of the classes, and their intervals for how "
            "exactly it is known.",
            *_describe_total(count),
            UNSIGNED,
        ]
    )


def _describe_search(count: DifferentialCount) -> str:
    locator = count.provenance["locator_sha256"][:DIGITS]
    by = f" by a network (SHA-256 {locator}…)" if locator else ""
    return f"{count.fields} fields were searched for cells{by}."


def _describe_scale(count: DifferentialCount) -> str:
    if count.um_per_pixel is None:
        return "The scale is not known, as the red cells do not tell it."
    red = count.scale.n if count.scale is not None else 0
    how = "as given"
    if count.scale_source == "red cells":
        how = f"by {red} red cells, taken to be 7.2 µm wide"
    return f"The scale is {count.um_per_pixel:.4g} µm per pixel, {how}."


def _describe_names(count: DifferentialCount, card: Card) -> list[str]:
    named, without = count.white + count.erythroblasts.count, sum(count.unidentified.values())
    sentences = [
        f"{named} nucleated cells were named by the model {card.name} (SHA-256 "
        f"{card.model_sha256[:DIGITS]}…); {without} more were not, and are in no percentage."
    ]
    if any(flag.name == UNLIKE_COUNTED for flag in count.flags):
        sentences.append("Cells unlike the training cells were named by its fallback model.")
    if card.morphology is not None and card.morphology.subtypes:
        told = {value for layer in card.morphology.subtypes for value in layer.values}
        rows = [row for row in count.classes if row.name in told and row.part_of]
        sentences.append(
            "The corrected shares of subtypes allow for how the model confuses them, too."
            if any(row.corrected is not None for row in rows)
            else "Subtypes are shares as counted, which no confusion is allowed for in."
        )
    return sentences


def _describe_total(count: DifferentialCount) -> list[str]:
    if count.white_cell_count is None:
        return []
    return [f"Numbers per litre are from the total of {count.white_cell_count:g}·10⁹/L."]
