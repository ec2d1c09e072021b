"""How a count was made, in one paragraph."""

from __future__ import annotations

from hemascope.bundle.card import Card
from hemascope.smear.counted import DifferentialCount
from hemascope.smear.flags import UNLIKE_COUNTED
from hemascope.wording import fill

UNSIGNED = fill("Nobody has signed this count.")
DIGITS = 16  # of a SHA-256 that are shown


def describe_method(count: DifferentialCount, card: Card) -> str:
    """The networks and their hashes, the fields and cells, the scale, the rules and intervals."""
    return " ".join(
        [
            *_describe_cells(count),
            *_describe_names(count, card),
            fill(
                "The denominator is {n} white {n?cell|cells}; erythroblasts and platelets are not "
                "in it.",
                n=count.white,
            ),
            fill(
                "Intervals are exact 95 % binomial intervals (Clopper and Pearson); the corrected "
                "shares allow for the model's confusion of the classes, and their intervals for "
                "how exactly it is known."
            ),
            *_describe_total(count),
            UNSIGNED,
        ]
    )


def _describe_cells(count: DifferentialCount) -> list[str]:
    """How the cells were found, and at which scale they were seen."""
    if count.single_cells:
        text = (
            "{n} {n?image|images} of single cells {n?was|were} given, whose choice decides the "
            "shares."
        )
        return [fill(text, n=count.fields), _describe_scale(count)]
    frame = fill("Cells that touch the left or upper border of a field count as its neighbour's.")
    return [_describe_search(count), _describe_scale(count), frame]


def _describe_search(count: DifferentialCount) -> str:
    locator = count.provenance["locator_sha256"][:DIGITS]
    if not locator:
        return fill("{n} {n?field was|fields were} searched for cells.", n=count.fields)
    return fill(
        "{n} {n?field was|fields were} searched for cells by a network (SHA-256 {sha256}…).",
        n=count.fields,
        sha256=locator,
    )


def _describe_scale(count: DifferentialCount) -> str:
    if count.scale_source == "single cells":
        if count.um_per_pixel is None:
            return fill("The scale is taken to be that of the training images.")
        text = (
            "The scale is {width} µm per pixel, as the cells in a sample of the images tell it, or "
            "that of the training images where they do not."
        )
        return fill(text, width=f"{count.um_per_pixel:.4g}")
    if count.um_per_pixel is None:
        return fill("The scale is not known, as the red cells do not tell it.")
    red = count.scale.n if count.scale is not None else 0
    width = f"{count.um_per_pixel:.4g}"
    if count.scale_source != "red cells":
        return fill("The scale is {width} µm per pixel, as given.", width=width)
    return fill(
        "The scale is {width} µm per pixel, by {n} red {n?cell|cells}, taken to be 7.2 µm wide.",
        width=width,
        n=red,
    )


def _describe_names(count: DifferentialCount, card: Card) -> list[str]:
    named, without = count.white + count.erythroblasts.count, sum(count.unidentified.values())
    sentences = [
        fill(
            "{n} nucleated {n?cell was|cells were} named by the model {name} (SHA-256 {sha256}…); "
            "{without} more {without?was|were} not, and {without?is|are} in no percentage.",
            n=named,
            name=card.name,
            sha256=card.model_sha256[:DIGITS],
            without=without,
        )
    ]
    if any(flag.name == UNLIKE_COUNTED for flag in count.flags):
        sentences.append(fill("Cells unlike the training cells were named by its fallback model."))
    if card.morphology is not None and card.morphology.subtypes:
        told = {value for layer in card.morphology.subtypes for value in layer.values}
        rows = [row for row in count.classes if row.name in told and row.part_of]
        sentences.append(
            fill("The corrected shares of subtypes allow for how the model confuses them, too.")
            if any(row.corrected is not None for row in rows)
            else fill("Subtypes are shares as counted, which no confusion is allowed for in.")
        )
    return sentences


def _describe_total(count: DifferentialCount) -> list[str]:
    if count.white_cell_count is None:
        return []
    total = f"{count.white_cell_count:g}"
    return [fill("Numbers per litre are from the total of {total}·10⁹/L.", total=total)]
