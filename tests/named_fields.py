"""Named fields and cards without any network, which several test files count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hemascope.bundle.card import Card
from hemascope.classes import BLOOD_CELLS, ClassSet
from hemascope.predictions import Prediction, Uncertainty
from hemascope.preprocess import InputSpec
from hemascope.smear.counted import NamedCell, NamedField
from hemascope.smear.records import Kind, LocatedCell, Scale
from hemascope.uncertainty.confusion import Confusion

WIDTH, HEIGHT, CELL = 640, 480, 60
SCALE = Scale(0.15, 0.148, 0.152, 40)


def card_of(names: Sequence[str] = BLOOD_CELLS.names, confused: float = 0.0) -> Card:
    """A card of a model that names a share of each class's cells as the next class."""
    n = 1000
    wrong = round(confused * n)
    rows = []
    for k in range(len(names)):
        row = [0] * len(names)
        row[k] = n - wrong
        row[(k + 1) % len(names)] += wrong
        rows.append(tuple(row))
    return Card(
        "drawn",
        ClassSet.from_names(names),
        InputSpec(128, 0.6, 20.0),
        "none",
        1,
        "0" * 64,
        "nothing",
        confusion=Confusion("drawn cells", tuple(rows), (0,) * len(names)),
    )


def prediction_of(
    label: str, names: Sequence[str] = BLOOD_CELLS.names, reasons: tuple[str, ...] = ()
) -> Prediction:
    """A Prediction that is sure, or that is for review for these reasons."""
    probabilities = dict.fromkeys(names, 0.01) | {label: 0.93}
    unlike = "unlike the training cells" in reasons
    uncertainty = Uncertainty(
        (label,), (label,), 2.0 if unlike else 0.5, not unlike, bool(reasons), reasons
    )
    return Prediction("a.png", label, 0.93, probabilities, uncertainty=uncertainty)


def located(kind: Kind, x: float = 300, y: float = 200, border: bool = False) -> LocatedCell:
    """A cell with its upper left corner at a place."""
    return LocatedCell(kind, (x, y, x + CELL, y + CELL), 0.9, border)


def white(
    label: str, reasons: tuple[str, ...] = (), names: Sequence[str] = BLOOD_CELLS.names
) -> NamedCell:
    """A white cell in the middle of a field."""
    return NamedCell(located("white"), prediction_of(label, names, reasons))


def field_of(
    cells: Sequence[NamedCell], path: str = "a.png", scale: Scale | None = SCALE, red: int = 10
) -> NamedField:
    """A field with these cells, and red cells."""
    others = tuple(NamedCell(located("red", 50 + index)) for index in range(red))
    width = None if scale is None else scale.um_per_pixel
    return NamedField(
        "slide",
        path,
        width=WIDTH,
        height=HEIGHT,
        cells=(*cells, *others),
        scale=scale,
        um_per_pixel=width,
    )


def fields_of(
    counts: Mapping[str, int], names: Sequence[str] = BLOOD_CELLS.names
) -> list[NamedField]:
    """A field for each white cell."""
    return [
        field_of([white(label, names=names)], f"{label}_{number}.png")
        for label, count in counts.items()
        for number in range(count)
    ]
