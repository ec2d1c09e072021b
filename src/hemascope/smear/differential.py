"""count_sample: the named fields of a sample → its differential count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hemascope.bundle.card import Card
from hemascope.errors import SampleError
from hemascope.provenance import provenance
from hemascope.smear.counted import DifferentialCount, NamedField, ScaleSource, Trusted
from hemascope.smear.flags import raise_flags
from hemascope.smear.method import describe_method
from hemascope.smear.naming import check_scale, join_scales
from hemascope.smear.shares import (
    add_totals,
    count_classes,
    count_erythroblasts,
    count_platelets,
    nucleated_of,
    subtypes_of,
)
from hemascope.smear.tally import SampleTally
from hemascope.wording import fill

UNLIKE_LIMIT = 0.1  # share of unlike cells above which a confusion of other cells says nothing


@dataclass(frozen=True)
class CountOptions:
    """What is asked of a count.

    `um_per_pixel` is the width of a pixel that is given, None to take it from the red cells. With
    `count_unlike`, cells that are only unlike the training cells, or blurred, are counted as well.
    `locator_sha256` is that of the network that located the cells.
    """

    um_per_pixel: float | None = None
    count_unlike: bool = False
    locator_sha256: str = ""


def count_sample(
    sample: str,
    fields: Iterable[NamedField],
    card: Card,
    wbc: float | None = None,
    options: CountOptions | None = None,
) -> DifferentialCount:
    """The differential count of a sample's fields, which pass by once.

    Parameters
    ----------
    sample
        Its name.
    fields
        Its fields with their named cells.
    card
        The card of the model that named them.
    wbc
        The white cell count of the blood in 10⁹/L, for numbers in a volume.
    options
        The scale that was given, and which cells are counted.

    Returns
    -------
    DifferentialCount
        Its status is "ok".

    Raises
    ------
    SampleError
        Where no field could be read, no cell was found, the fields are of two magnifications, or
        the given scale contradicts the red cells.

    Examples
    --------
    >>> from hemascope import Classifier
    >>> from hemascope.smear.counted import NamedCell, NamedField
    >>> from hemascope.smear.differential import count_sample
    >>> from hemascope.smear.records import LocatedCell
    >>> red = NamedCell(LocatedCell("red", (10, 10, 50, 50), 0.9, at_border=False))
    >>> field = NamedField("slide", "a.png", width=640, height=480, cells=(red,))
    >>> count = count_sample("slide", [field], Classifier().card)
    >>> count.red_cells, count.white
    (1, 0)
    """
    options = options or CountOptions()
    tally = SampleTally(options.count_unlike)
    for found in fields:
        tally.add(found)
    _check(tally)
    scale = join_scales(tally.scales)
    if options.um_per_pixel is not None:
        check_scale(options.um_per_pixel, scale)
    named = {name: len(places) for name, places in tally.named.items()}
    told = {name: len(places) for name, places in tally.subtypes.items()}
    cells = nucleated_of(named, card)
    rows = count_classes(cells, subtypes_of(named, told, card))
    trusted, because = _choose(tally, card, cells.draws is not None)
    per_field, per_red_cell = count_platelets(tally.per_field)
    count = DifferentialCount(
        sample=sample,
        fields=len(tally.per_field),
        unreadable=tuple(tally.unreadable),
        white=rows[0].share.n if rows else 0,
        classes=rows,
        trusted=trusted,
        trusted_because=because,
        erythroblasts=count_erythroblasts(cells),
        platelets=sum(platelets for platelets, _ in tally.per_field),
        red_cells=sum(red for _, red in tally.per_field),
        platelets_per_field=per_field,
        platelets_per_red_cell=per_red_cell,
        unidentified=tally.count_unidentified(),
        outside_frame=dict(tally.outside_frame),
        um_per_pixel=tally.um_per_pixel,
        scale=scale,
        scale_source=_scale_source(tally, options),
        single_cells=tally.single_cells,
        provenance=provenance_of(card, options),
    )
    count = add_totals(count, wbc)
    count = replace(count, flags=raise_flags(count, tally, card))
    return replace(count, method=describe_method(count, card))


def provenance_of(card: Card, options: CountOptions) -> dict[str, str]:
    """Where a count comes from: versions, and the networks that named and located the cells."""
    return provenance() | {
        "model": card.name,
        "model_sha256": card.model_sha256,
        "locator_sha256": options.locator_sha256,
    }


def _check(tally: SampleTally) -> None:
    """Raises SampleError for a sample without a field that can be read, or without a cell."""
    fields = len(tally.per_field)
    if not fields:
        raise SampleError(
            fill(
                "none of its {n} {n?field|fields} could be read; {why}",
                n=len(tally.unreadable),
                why=tally.unreadable[0],
            )
            if tally.unreadable
            else "it has no fields"
        )
    if len(tally.empty_fields) == fields:
        raise SampleError(
            fill(
                "no cell was found in its {n} {n?field|fields}; they must be photographs of a "
                "stained smear, in focus, on which white cells, red cells or platelets can be seen",
                n=fields,
            )
        )


def _choose(tally: SampleTally, card: Card, corrected: bool) -> tuple[Trusted, str]:
    """Which shares are to be trusted, and why."""
    if card.confusion is None:
        return "raw", "the model's card does not say how it confuses the classes"
    if not corrected:
        return "raw", "too few labelled cells say how the model confuses the classes"
    unlike, whole = len(tally.unlike), tally.whole_white
    if unlike > UNLIKE_LIMIT * whole:
        return "raw", (
            fill(
                "{n} of {whole} white {whole?cell|cells} {n?is|are} unlike the cells on which the "
                "model's confusion was measured ({place}), so that a correction by it may be wrong",
                n=unlike,
                whole=whole,
                place=card.confusion.measured_on,
            )
        )
    return "corrected", (
        "the white cells are like those on which the model's confusion was measured "
        f"({card.confusion.measured_on}); the shares as counted contain the cells that it confuses"
    )


def _scale_source(tally: SampleTally, options: CountOptions) -> ScaleSource:
    if options.um_per_pixel is not None:
        return "given"
    if tally.single_cells:
        return "single cells"
    return "not found" if tally.um_per_pixel is None else "red cells"
