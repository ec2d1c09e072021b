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
from hemascope.wording import fill

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
            text = "{n} {n?cell was|cells were} named {n?blast|blasts}; look at {n?it|each of them}"
            yield Flag("blasts", fill(text, n=len(places)), places)
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
        text = (
            "{n} {n?erythroblast was|erythroblasts were} named: {value} per 100 white cells "
            "({low} – {high})"
        )
        yield Flag("erythroblasts", fill(text, n=len(seen), **_in_words(per_100)), seen)


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
    percent = Interval(100 * share.value, 100 * share.low, 100 * share.high)
    text = "{value} % {title} ({low} – {high}), more than in healthy adults"
    return fill(text, title=row.title, **_in_words(percent))


def _in_words(found: Interval) -> dict[str, str]:
    return {name: f"{getattr(found, name):.1f}" for name in ("value", "low", "high")}


def _about_unlike_cells(tally: SampleTally) -> Iterator[Flag]:
    """Cells like none of the classes."""
    unlike = tuple(tally.unlike)
    none_likely = tuple(tally.unidentified.get(NONE_LIKELY, ()))
    if unlike and 2 * len(unlike) > tally.whole_white:
        text = (
            "{n} of {whole} white {whole?cell|cells} {n?is|are} unlike the training cells, as is "
            "usual for another microscope or stain: 'hemascope adapt' fits the model to ten "
            "labelled cells per class"
        )
        values = {"n": len(unlike), "whole": tally.whole_white}
        yield Flag("another laboratory", fill(text, **values), unlike)
    elif unlike:
        text = (
            "{n} {n?cell is|cells are} unlike the training cells, and may be {n?a blast|blasts}, "
            "{n?an atypical cell or an artefact|atypical cells or artefacts}"
        )
        yield Flag("like none of the classes", fill(text, n=len(unlike)), unlike)
    if none_likely:
        text = (
            "of {n} {n?cell|cells} no class is likely enough; immature cells are often among such"
        )
        yield Flag("no class likely", fill(text, n=len(none_likely)), none_likely)


def _about_unidentified(count: DifferentialCount, tally: SampleTally, card: Card) -> Iterator[Flag]:
    without = tuple(
        place for why, places in tally.unidentified.items() if why != AT_BORDER for place in places
    )
    whole = tally.whole_white
    if len(without) > UNIDENTIFIED * whole:
        text = (
            "{n} of {whole} white {whole?cell that is|cells that are} whole {n?has|have} no name "
            "({percent} %); the shares are of the others"
        )
        percent = f"{100 * len(without) / whole:.0f}"
        words = fill(text, n=len(without), whole=whole, percent=percent)
        yield Flag("many unidentified", words, without)
    if card.uncertainty is None:
        yield Flag(
            "not calibrated",
            fill(
                "the model is not calibrated: no cell is left out for being uncertain or unlike "
                "the training cells"
            ),
        )
    if tally.unlike_named:
        text = (
            "{n} of the counted cells {n?is|are} unlike the training cells; such cells are counted "
            "because --count-unlike asks for it"
        )
        yield Flag(UNLIKE_COUNTED, fill(text, n=tally.unlike_named))
    for row in count.classes:
        share, weighted = interval_of(row.share), _weighted_share(row, count, tally)
        if share is not None and weighted is not None and not share.low <= weighted <= share.high:
            text = (
                "larger cells are cut off at a border more often: allowing for this, {title} would "
                "be {weighted} % instead of {share} %; use larger fields"
            )
            values = {"weighted": f"{100 * weighted:.1f}", "share": f"{100 * share.value:.1f}"}
            yield Flag("cut off by size", fill(text, title=row.title, **values))


def _weighted_share(row: ClassCount, count: DifferentialCount, tally: SampleTally) -> float | None:
    """A class's share when each cell stands for those of its size that are cut off."""
    total = sum(tally.weights.get(other.name, 0.0) for other in count.classes)
    return tally.weights[row.name] / total if row.name in tally.weights and total else None


def _about_numbers(count: DifferentialCount) -> Iterator[Flag]:
    if count.white < FEW:
        least = TOO_FEW if count.white < TOO_FEW else FEW
        text = (
            "{n} white {n?cell was|cells were} counted, fewer than {least}; the intervals are "
            "wide, and rare cells may not be seen"
        )
        yield Flag("few cells", fill(text, n=count.white, least=least))


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
    text = (
        "how the model confuses the classes was measured on as few as {n} {n?cell|cells} of a "
        "class, so that the corrected shares are far less certain than the count ({titles}); label "
        "more cells, and adapt or calibrate the model with them"
    )
    least = min(n for n in labelled if n)
    yield Flag("confusion hardly known", fill(text, n=least, titles=", ".join(widened)))


def _about_fields(count: DifferentialCount, tally: SampleTally) -> Iterator[Flag]:
    if count.single_cells:
        text = (
            "these are images of single cells: the shares are those of the images, and they are "
            "the blood's only if the images show each white cell that was met; red cells and "
            "platelets are not counted"
        )
        yield Flag("single cells", fill(text))
    if tally.blurred_fields:
        places = tuple(
            place
            for place in tally.unidentified.get(BLURRED, ())
            if place.path in set(tally.blurred_fields)
        )
        text = "{fields} out of focus: most white cells there are blurred"
        yield Flag("out of focus", fill(text, fields=_some(tally.blurred_fields)), places)
    if count.scale_source == "not found":
        yield Flag(
            "scale not found",
            fill(
                "too few red cells tell how wide a pixel is, so that no white cell is named; give "
                "--um-per-pixel"
            ),
        )
    elif tally.without_scale and count.scale_source == "red cells":
        text = "the red cells of {fields} do not tell the scale; that of the other fields was used"
        yield Flag("scale not found", fill(text, fields=_some(tally.without_scale)))
    if tally.empty_fields:
        text = "no cell was found in {fields}"
        yield Flag("empty fields", fill(text, fields=_some(tally.empty_fields)))
    if count.unreadable:
        text = "{n} {n?field|fields} could not be read"
        yield Flag("damaged files", fill(text, n=len(count.unreadable)))


def _some(paths: list[str]) -> str:
    """Such as "3 of the fields (a.png, b.png, …)"."""
    rest = ", …" if len(paths) > 3 else ""
    return fill("{n} of the fields ({names})", n=len(paths), names=", ".join(paths[:3]) + rest)
