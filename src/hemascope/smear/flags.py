"""What a person should know of a count, in words, with the cells that raised it."""

from __future__ import annotations

from collections.abc import Iterator

from hemascope.bundle.card import Card
from hemascope.classes import find_counted_class
from hemascope.records import Interval
from hemascope.smear.counted import CellPlace, ClassCount, DifferentialCount, Flag, interval_of
from hemascope.smear.reasons import AT_BORDER
from hemascope.smear.tally import SampleTally
from hemascope.uncertainty.image_quality import BLURRED
from hemascope.uncertainty.model import NONE_LIKELY

FEW, TOO_FEW = 200, 100  # white cells; CLSI H20 counts 200, twice
LEFT_SHIFT = 0.01  # share of immature granulocytes that healthy adults do not reach
BANDS = 0.1  # share of band neutrophils, likewise
WIDENED = 1.5  # times as wide as the interval of the count
UNLIKE_COUNTED = "unlike cells counted"
BAND_NAMES = find_counted_class("band neutrophil").names
UNIDENTIFIED = 0.1  # share of the white cells that are whole


def raise_flags(count: DifferentialCount, tally: SampleTally, card: Card) -> tuple[Flag, ...]:
    """The flags of a count, the gravest first."""
    found = [
        *_about_cells(count, tally),
        *_about_unlike_cells(tally),
        *_about_unidentified(count, tally, card),
        *_about_numbers(count),
        *_about_correction(count, card),
        *_about_fields(count, tally),
    ]
    return tuple(found)


def _about_cells(count: DifferentialCount, tally: SampleTally) -> Iterator[Flag]:
    """Left shift, blasts, erythroblasts."""
    for row in count.classes:
        share, places = count.trusted_share(row), _places_of(row, tally)
        counted = find_counted_class(row.name)
        if share is None or not places or not counted.immature or row.part_of:
            continue
        if counted.names[0] == "blast":
            yield Flag(
                "blasts", f"{len(places)} cells were named blasts; look at each of them", places
            )
        elif share.low > LEFT_SHIFT:
            yield Flag("left shift", _describe_shift(row, share), places)
    for row in count.classes:
        share = count.trusted_share(row)
        # Of a subtype only as corrected, since many segmented neutrophils may be named bands.
        is_class, is_corrected = row.name in tally.named, share == row.corrected
        if row.name not in BAND_NAMES or not (is_class or is_corrected):
            continue
        if share is not None and share.low > BANDS:
            places = _places_of(row, tally) if is_class else tuple(tally.subtypes.get(row.name, ()))
            yield Flag("left shift", _describe_shift(row, share), places)
    seen = tuple(
        place
        for name, places in tally.named.items()
        if find_counted_class(name).role == "erythroblast"
        for place in places
    )
    per_100 = count.trusted_erythroblasts
    if seen and per_100 is not None:
        yield Flag(
            "erythroblasts",
            f"{len(seen)} erythroblasts were named: {per_100.value:.1f} per 100 white cells "
            f"({per_100.low:.1f} – {per_100.high:.1f})",
            seen,
        )


def _places_of(row: ClassCount, tally: SampleTally) -> tuple[CellPlace, ...]:
    """Where the cells of a row are, those of its subtypes too."""
    key = find_counted_class(row.name).names[0]
    return tuple(
        place
        for name, places in tally.named.items()
        if name == row.name or find_counted_class(name).part_of == key
        for place in places
    )


def _describe_shift(row: ClassCount, share: Interval) -> str:
    return (
        f"{100 * share.value:.1f} % {row.title} ({100 * share.low:.1f} – {100 * share.high:.1f}), "
        "more than in healthy adults"
    )


def _about_unlike_cells(tally: SampleTally) -> Iterator[Flag]:
    """Cells like none of the classes."""
    unlike = tuple(tally.unlike)
    none_likely = tuple(tally.unidentified.get(NONE_LIKELY, ()))
    if unlike and 2 * len(unlike) > tally.whole_white:
        yield Flag(
            "another laboratory",
            f"{len(unlike)} of {tally.whole_white} white cells are unlike the training cells, as "
            "is usual for another microscope or stain: 'hemascope adapt' fits the model to ten "
            "labelled cells per class",
            unlike,
        )
    elif unlike:
        yield Flag(
            "like none of the classes",
            f"{len(unlike)} cells are unlike the training cells; they may be blasts, atypical "
            "cells or artefacts",
            unlike,
        )
    if none_likely:
        yield Flag(
            "no class likely",
            f"of {len(none_likely)} cells no class is likely enough; immature cells are often "
            "among them",
            none_likely,
        )


def _about_unidentified(count: DifferentialCount, tally: SampleTally, card: Card) -> Iterator[Flag]:
    without = tuple(
        place for why, places in tally.unidentified.items() if why != AT_BORDER for place in places
    )
    whole = tally.whole_white
    if len(without) > UNIDENTIFIED * whole:
        yield Flag(
            "many unidentified",
            f"{len(without)} of {whole} white cells that are whole have no name "
            f"({100 * len(without) / whole:.0f} %); the shares are of the others",
            without,
        )
    if card.uncertainty is None:
        yield Flag(
            "not calibrated",
            "the model is not calibrated: no cell is left out for being uncertain or unlike the "
            "training cells",
        )
    if tally.unlike_named:
        yield Flag(
            UNLIKE_COUNTED,
            f"{tally.unlike_named} of the counted cells are unlike the training cells; they are "
            "counted because --count-unlike asks for it",
        )
    for row in count.classes:
        share, weighted = interval_of(row.share), _weighted_share(row, count, tally)
        if share is not None and weighted is not None and not share.low <= weighted <= share.high:
            yield Flag(
                "cut off by size",
                f"larger cells are cut off at a border more often: allowing for this, {row.title} "
                f"would be {100 * weighted:.1f} % instead of {100 * share.value:.1f} %; use larger "
                "fields",
            )


def _weighted_share(row: ClassCount, count: DifferentialCount, tally: SampleTally) -> float | None:
    """A class's share when each cell stands for those of its size that are cut off."""
    total = sum(tally.weights.get(other.name, 0.0) for other in count.classes)
    return tally.weights[row.name] / total if row.name in tally.weights and total else None


def _about_numbers(count: DifferentialCount) -> Iterator[Flag]:
    if count.white < FEW:
        least = TOO_FEW if count.white < TOO_FEW else FEW
        yield Flag(
            "few cells",
            f"{count.white} white cells were counted, fewer than {least}; the intervals are wide, "
            "and rare cells may not be seen",
        )


def _about_correction(count: DifferentialCount, card: Card) -> Iterator[Flag]:
    """Where the model's confusion is known so badly that correcting for it says little."""
    widened = [
        row.title
        for row in count.classes
        if not row.part_of or row.name in card.classes.names  # no subtype
        if row.corrected is not None and row.share.low is not None and row.share.high is not None
        if row.corrected.high - row.corrected.low > WIDENED * (row.share.high - row.share.low)
    ]
    if count.trusted != "corrected" or card.confusion is None or not widened:
        return
    labelled = [
        sum(row) + lost
        for row, lost in zip(card.confusion.counts, card.confusion.unidentified, strict=True)
    ]
    yield Flag(
        "confusion hardly known",
        f"how the model confuses the classes was measured on as few as "
        f"{min(n for n in labelled if n)} cells of a class, so that the corrected shares are far "
        f"less certain than the count ({', '.join(widened)}); label more cells, and adapt or "
        "calibrate the model with them",
    )


def _about_fields(count: DifferentialCount, tally: SampleTally) -> Iterator[Flag]:
    if tally.blurred_fields:
        places = tuple(
            place
            for place in tally.unidentified.get(BLURRED, ())
            if place.path in set(tally.blurred_fields)
        )
        yield Flag(
            "out of focus",
            f"{_some(tally.blurred_fields)} out of focus: most of their white cells are blurred",
            places,
        )
    if count.scale_source == "not found":
        yield Flag(
            "scale not found",
            "too few red cells tell how wide a pixel is, so that no white cell is named; give "
            "--um-per-pixel",
        )
    elif tally.without_scale and count.scale_source == "red cells":
        yield Flag(
            "scale not found",
            f"the red cells of {_some(tally.without_scale)} do not tell the scale; that of the "
            "other fields was used",
        )
    if tally.empty_fields:
        yield Flag("empty fields", f"no cell was found in {_some(tally.empty_fields)}")
    if count.unreadable:
        yield Flag("damaged files", f"{len(count.unreadable)} fields could not be read")


def _some(paths: list[str]) -> str:
    """Such as "3 of the fields (a.png, b.png, …)"."""
    rest = ", …" if len(paths) > 3 else ""
    return f"{len(paths)} of the fields ({', '.join(paths[:3])}{rest})"
