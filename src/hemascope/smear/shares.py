"""Counts of names → rows of a differential count, as counted and corrected, and ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from hemascope.arrays import FloatArray
from hemascope.bundle.card import Card
from hemascope.classes import COUNTED_CLASSES, CountedClass, find_counted_class
from hemascope.metrics.intervals import bootstrap, exact_interval
from hemascope.records import Estimate, Interval
from hemascope.smear.counted import ClassCount, DifferentialCount, Erythroblasts, interval_of
from hemascope.uncertainty.confusion import correct_shares, is_measured, summarise
from hemascope.uncertainty.morphology import MorphologyModel

SEED_OF_SUBTYPES = 1  # their draws must not go along with those of the classes


@dataclass(frozen=True)
class Nucleated:
    """The classes of a model that are nucleated cells, how often each was named, and draws.

    `draws` (R,K) are shares among all of them that the counts allow once the model's confusion is
    taken into account, the estimate first; None where nothing can be corrected. `measured` are the
    classes whose confusion is known; others, which no cell was named, are 0 in the draws.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    measured: frozenset[int]
    draws: FloatArray | None

    def correct(
        self, chosen: Sequence[int], among: Sequence[int], within: FloatArray | float = 1.0
    ) -> Interval | None:
        """The corrected share of some classes among others; None where it is not known.

        `within` (R,) are draws of the part of these classes that is meant.
        """
        if self.draws is None or not self.measured.issuperset(chosen):
            return None
        total = self.draws[:, list(among)].sum(axis=1)
        part = self.draws[:, list(chosen)].sum(axis=1)
        shares = np.divide(part, total, out=np.zeros_like(part), where=total > 0)
        return summarise((shares * within)[:, None])[0]

    def count(self, chosen: Sequence[int]) -> int:
        """How many cells were named one of these."""
        return sum(self.counts[k] for k in chosen)


def nucleated_of(counts: Mapping[str, int], card: Card) -> Nucleated:
    """The nucleated classes of a model with the counts of their names, corrected where possible."""
    indices = [
        index
        for index, name in enumerate(card.classes.names)
        if find_counted_class(name).role in ("white", "erythroblast")
    ]
    names = tuple(card.classes.names[index] for index in indices)
    seen = tuple(counts.get(name, 0) for name in names)
    if card.confusion is None:
        return Nucleated(names, seen, frozenset(), None)
    measured = [k for k, index in enumerate(indices) if is_measured(card.confusion, index)]
    draws = None
    if sum(seen[k] for k in measured) == sum(seen):
        draws = correct_shares(
            card.confusion, [indices[k] for k in measured], [seen[k] for k in measured]
        )
    if draws is not None:
        every = np.zeros((len(draws), len(names)))
        every[:, measured] = draws
        draws = every
    return Nucleated(names, seen, frozenset(measured), draws)


@dataclass(frozen=True)
class SubtypeCount:
    """How often a subtype was named, and draws (R,) of its part of its class that this allows.

    `within` is None where it is not known how the model confuses the subtypes.
    """

    name: str
    count: int
    within: FloatArray | None


Subtypes: TypeAlias = Mapping[str, Sequence[SubtypeCount]]
"""Name of a class → its subtypes."""


def subtypes_of(counts: Mapping[str, int], told: Mapping[str, int], card: Card) -> Subtypes:
    """How often each subtype that the model tells was named, in the order of a report.

    `counts` are those of the names of classes, and `told` those of subtypes.
    """
    if card.morphology is None:
        return {}
    order = [counted.names[0] for counted in COUNTED_CLASSES]

    def place(name: str) -> int:
        known = find_counted_class(name).names[0]
        return order.index(known) if known in order else len(order)

    within = _draw_within(counts, told, card.morphology, card.classes.names)
    return {
        layer.name: [
            SubtypeCount(name, told.get(name, 0), within.get((layer.name, name)))
            for name in sorted(layer.values, key=place)
        ]
        for layer in card.morphology.subtypes
    }


def _draw_within(
    counts: Mapping[str, int],
    told: Mapping[str, int],
    model: MorphologyModel,
    class_names: Sequence[str],
) -> dict[tuple[str, str], FloatArray]:
    """Draws of the part that each subtype is of its class, by (class, subtype), where known.

    Subtypes are corrected together with all nucleated classes, since a cell of another class that
    is named by mistake is named some subtype too.
    """
    if model.confusion is None:
        return {}
    names, divided = model.names_told(class_names), {layer.name for layer in model.subtypes}
    chosen = [
        index
        for index, (class_name, _) in enumerate(names)
        if find_counted_class(class_name).role in ("white", "erythroblast")
        if is_measured(model.confusion, index)
    ]
    seen = [
        (told if class_name in divided else counts).get(name, 0)
        for class_name, name in (names[index] for index in chosen)
    ]
    draws = correct_shares(model.confusion, chosen, seen, SEED_OF_SUBTYPES)
    if draws is None:
        return {}
    by_name = {names[index]: draws[:, column] for column, index in enumerate(chosen)}
    within = {}
    for layer in model.subtypes:
        keys = [(layer.name, value) for value in layer.values]
        if all(key in by_name for key in keys):
            whole = np.sum([by_name[key] for key in keys], axis=0)
            for key in keys:
                part = by_name[key]
                within[key] = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return within


def count_classes(cells: Nucleated, subtypes: Subtypes | None = None) -> tuple[ClassCount, ...]:
    """A row for each class of white cells, in the order of a report, and for what they are part of.

    All shares are of the white cells with a name. A class whose subtypes the model names has a row
    too, which sums them up. The rows of `subtypes` that the model tells within a class follow that
    class. Their corrected shares are those of the class, times the part that the subtype is of it.
    """
    roles = [find_counted_class(name).role for name in cells.names]
    white = [k for k, role in enumerate(roles) if role == "white"]
    known = [(name, find_counted_class(name)) for name in cells.names]
    rows = []
    for title, name, part_of, chosen in _groups(known, white):
        share = exact_interval(cells.count(chosen), cells.count(white))
        rows.append(ClassCount(name, title, part_of, share, cells.correct(chosen, white)))
        for found in (subtypes or {}).get(name, ()):
            share = exact_interval(found.count, cells.count(white))
            corrected = None
            if found.within is not None:
                corrected = cells.correct([cells.names.index(name)], white, found.within)
            title = find_counted_class(found.name).title
            rows.append(ClassCount(found.name, title, name, share, corrected))
    return tuple(rows)


def _groups(
    known: Sequence[tuple[str, CountedClass]], white: Sequence[int]
) -> list[tuple[str, str, str, list[int]]]:
    """(title, name, part of, indices) of each row."""
    groups = []
    for counted in COUNTED_CLASSES:
        own = [k for k in white if known[k][1] == counted]
        parts = [k for k in white if known[k][1].part_of == counted.names[0]]
        if own or parts:
            name = known[own[0]][0] if own else counted.names[0]
            groups.append((counted.title, name, counted.part_of, own + parts))
    listed = {k for *_, chosen in groups for k in chosen}
    groups += [(known[k][1].title, known[k][0], "", [k]) for k in white if k not in listed]
    present = {name for _, name, _, _ in groups}
    return [
        (title, name, part_of if part_of in present else "", chosen)
        for title, name, part_of, chosen in groups
    ]


def count_erythroblasts(cells: Nucleated) -> Erythroblasts:
    """Erythroblasts per 100 white cells: of a share p of both, 100 p/(1 - p)."""
    roles = [find_counted_class(name).role for name in cells.names]
    chosen = [k for k, role in enumerate(roles) if role == "erythroblast"]
    white = [k for k, role in enumerate(roles) if role == "white"]
    count, whites = cells.count(chosen), cells.count(white)
    share = interval_of(exact_interval(count, count + whites))
    if not chosen or share is None or not whites:
        return Erythroblasts(count, None, None)
    corrected = cells.correct(chosen, range(len(cells.names)))
    return Erythroblasts(count, _per_100(share), None if corrected is None else _per_100(corrected))


def _per_100(share: Interval) -> Interval:
    values = (
        100 * part / (1 - part) if part < 1 else float("inf")
        for part in (share.value, share.low, share.high)
    )
    return Interval(*values)


def add_totals(count: DifferentialCount, wbc: float | None) -> DifferentialCount:
    """The count with numbers in 10⁹/L, where the total of nucleated cells is given.

    Instruments count erythroblasts among the white cells, so that the total is divided by
    1 + erythroblasts/100. The intervals of the classes are those of their shares alone: how exact
    the total is, is not known here.
    """
    if wbc is None:
        return count
    among = count.trusted_erythroblasts
    corrected = (
        Interval(wbc, wbc, wbc)
        if among is None
        else Interval(*(wbc / (1 + per / 100) for per in (among.value, among.high, among.low)))
    )
    rows = []
    for row in count.classes:
        share = count.trusted_share(row)
        absolute = None
        if share is not None:
            absolute = Interval(
                *(part * corrected.value for part in (share.value, share.low, share.high))
            )
        rows.append(replace(row, absolute=absolute))
    return replace(
        count,
        white_cell_count=wbc,
        corrected_white_cell_count=corrected,
        classes=tuple(rows),
    )


def count_platelets(per_field: Sequence[tuple[int, int]]) -> tuple[Estimate, Estimate]:
    """Platelets per field and per red cell, of (platelets, red cells) in the frame of each field.

    The intervals are from resampling fields, because platelets lie in clumps; a single field has
    none.
    """
    seen = np.array(per_field, dtype=np.float64).reshape(-1, 2)

    def ratios(weights: FloatArray) -> FloatArray:
        platelets, red = (weights @ seen).T
        per_red = np.divide(platelets, red, out=np.full(len(red), np.nan), where=red > 0)
        return np.stack([platelets / weights.sum(axis=1), per_red], axis=1)

    per_one, per_red = bootstrap(ratios, len(seen))
    if len(seen) < 2:
        per_one, per_red = (replace(found, low=None, high=None) for found in (per_one, per_red))
    return per_one, per_red
