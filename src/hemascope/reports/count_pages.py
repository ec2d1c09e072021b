"""Pages of a differential count: the fields, the table, the cells; and of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hemascope.bundle.card import Card
from hemascope.classes import find_counted_class
from hemascope.records import Interval
from hemascope.reports.count_fields import (
    CELLS,
    NO_NAME,
    PLATELET,
    RED,
    ShownCell,
    choose,
    colours_of,
    show,
)
from hemascope.reports.render import render
from hemascope.smear.compare import ClassComparison, Comparison
from hemascope.smear.counted import ClassCount, DifferentialCount, NamedField, interval_of
from hemascope.smear.reported import format_number
from hemascope.wording import fill

PLOT = 180  # pixels a side


@dataclass(frozen=True)
class Bar:
    """An interval as parts of a row's width: where it begins, ends, and its value is."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Row:
    """One row of the table, as text and as bars; `members` are the model's classes in it."""

    title: str
    members: tuple[str, ...]
    part_of: str
    colour: str
    cells: int
    raw: str
    corrected: str
    absolute: str
    raw_bar: Bar | None
    corrected_bar: Bar | None


@dataclass(frozen=True)
class GroupOfCells:
    """The cells of one class, from the least certain."""

    name: str
    title: str
    colour: str
    cells: tuple[ShownCell, ...]


@dataclass(frozen=True)
class Point:
    """A sample in a plot of ours against the manual percentage, in pixels from the upper left."""

    x: float
    y: float
    text: str
    within: bool


def count_page(
    count: DifferentialCount, fields: Iterable[NamedField], card: Card, count_unlike: bool = False
) -> str:
    """The page of a sample: fields with boxes, table, flags, galleries, what was not counted."""
    chosen = choose(fields, count_unlike)
    shown_fields, shown_cells = show(chosen)
    colours = colours_of(card)
    limit = _axis_limit(count)
    names = [row.name for row in count.classes if row.name in card.classes.names]
    names += [name for name in card.classes.names if name not in names and name != PLATELET]
    groups = [*names, NO_NAME]
    return render(
        "count.html.j2",
        count=count,
        card=card,
        rows=[_row(count, row, card, limit) for row in count.classes],
        ticks=[limit * part / 4 for part in range(5)],
        erythroblasts=_erythroblasts(count),
        total=_describe(count.corrected_white_cell_count, "·10⁹/L"),
        toggles=[(name, _title(name), colours[name]) for name in [*groups, RED, PLATELET]],
        fields=shown_fields,
        colours=colours,
        galleries=[
            GroupOfCells(name, _title(name), colours[name], found)
            for name in groups
            if (found := tuple(cell for cell in shown_cells if cell.group == name))
        ],
        all_cells=count.white + count.erythroblasts.count + sum(count.unidentified.values()),
        shown_cells=len(shown_cells),
        most=CELLS,
        flagged=[
            [chosen.keys[place] for place in flag.cells if place in chosen.keys]
            for flag in count.flags
        ],
    )


def _axis_limit(count: DifferentialCount) -> float:
    """The end of the axis, in percent: the largest limit, rounded up to the next twenty."""
    highs = [0.1]
    for row in count.classes:
        highs += [found.high for found in (interval_of(row.share), row.corrected) if found]
    return min(100.0, 20.0 * -(-max(highs) * 100 // 20))


def _row(count: DifferentialCount, row: ClassCount, card: Card, limit: float) -> Row:
    raw, seen = interval_of(row.share), row.share.successes > 0
    return Row(
        row.title,
        tuple(name for name in card.classes.names if _is_in(name, row)),
        row.part_of,
        colours_of(card).get(row.name, "#666666"),
        row.share.successes,
        _percent(raw, seen),
        _percent(row.corrected, seen),
        _describe(row.absolute) if seen else _at_most(row.absolute),
        _bar(raw, limit),
        _bar(row.corrected, limit),
    )


def _is_in(name: str, row: ClassCount) -> bool:
    """Whether a class of the model is counted in a row."""
    return name == row.name or find_counted_class(name).part_of == row.name


def _title(name: str) -> str:
    """What a group of cells is called: a class in the plural, or a kind as it is."""
    return name if name in (NO_NAME, RED, PLATELET) else find_counted_class(name).title


def _bar(share: Interval | None, limit: float) -> Bar | None:
    if share is None:
        return None
    low, value, high = (
        min(100.0, 10_000 * x / limit) for x in (share.low, share.value, share.high)
    )
    return Bar(low, value, high)


def _percent(share: Interval | None, seen: bool) -> str:
    if share is None:
        return "–"
    if not seen:
        return f"not seen, at most {100 * share.high:.1f} %"
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} – {100 * share.high:.1f})"


def _erythroblasts(count: DifferentialCount) -> str:
    found, cells = count.trusted_erythroblasts, count.erythroblasts.count
    text = _describe(found) if cells else _at_most(found)
    if not text:
        return "–"
    return fill("{n} {n?cell|cells}, {text}", n=cells, text=text) if cells else f"not seen, {text}"


def _at_most(found: Interval | None) -> str:
    return "" if found is None else f"at most {format_number(found.high)}"


def _describe(found: Interval | None, unit: str = "") -> str:
    if found is None:
        return ""
    low, value, high = map(format_number, (found.low, found.value, found.high))
    return f"{value}{unit}" if low == high else f"{value}{unit} ({low} – {high})"


def comparison_page(comparison: Comparison, card: Card) -> str:
    """Our counts beside manual ones: a table, and a plot for each class."""
    colours = colours_of(card)
    plots = [
        (found, colours.get(found.name, "#666666"), *_plot(found)) for found in comparison.classes
    ]
    return render("comparison.html.j2", comparison=comparison, plots=plots, side=PLOT, card=card)


def _plot(found: ClassComparison) -> tuple[float, list[Point]]:
    """The end of both axes in percent, and the samples."""
    most = max((max(each.manual, each.ours) for each in found.differences), default=0.0)
    limit = 10.0 * max(1, -(-most // 10))
    return limit, [
        Point(
            PLOT * each.manual / limit,
            PLOT * (1 - each.ours / limit),
            f"{each.sample}: by hand {each.manual:.1f} %, here {each.ours:.1f} %",
            each.within,
        )
        for each in found.differences
    ]
