"""Differential counts beside manual ones: bias, limits of agreement, a line, kappa, chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemascope.classes import CountedClass, find_counted_class
from hemascope.data.csv_table import open_table
from hemascope.errors import ManifestError
from hemascope.escaping import read_escaped
from hemascope.metrics.agreement import (
    LimitsOfAgreement,
    Line,
    chance_of_difference,
    into_categories,
    limits_of_agreement,
    passing_bablok,
    weighted_kappa,
)
from hemascope.smear.counted import DifferentialCount

CELLS = "cells"
# Percentages that part the categories of kappa: about 1, 2, 3, … standard errors of a count of 200.
EDGES = (0.5, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0, 65.0, 80.0)
SURE = 0.05


@dataclass(frozen=True)
class ManualCount:
    """One sample's manual count: cells by class of the model's count, white cells only."""

    sample: str
    cells: dict[str, int]

    @property
    def white(self) -> int:
        """How many white cells were counted."""
        return sum(self.cells.values())


@dataclass(frozen=True)
class Difference:
    """One class of one sample: both percentages, and how often chance alone parts them as far.

    `within` says that chance does so in at least 5 % of counts: they agree within their own error.
    """

    sample: str
    manual: float
    ours: float
    chance: float
    within: bool


@dataclass(frozen=True)
class ClassComparison:
    """One class over all samples, in percentage points; undefined figures are None."""

    name: str
    title: str
    agreement: LimitsOfAgreement
    line: Line
    kappa: float | None
    within: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """Our counts beside manual ones; `missing` are the samples that only one side has."""

    samples: int
    classes: tuple[ClassComparison, ...]
    missing: tuple[str, ...]


def read_manual_counts(path: Path, names: Sequence[str]) -> tuple[ManualCount, ...]:
    """Manual counts: a row per sample, a column for each class of white cells with its cells.

    With a column `cells`, which says how many white cells were counted, the others are
    percentages. Columns of subtypes are added up where the model names only their class, and
    erythroblasts, which are no white cells, are passed over. Raises ManifestError for a table
    without a column sample, a class that the model does not count or that is missing, a sample
    given twice, and what is no count.
    """
    counts: dict[str, ManualCount] = {}
    with open_table(path) as reader:
        columns = _columns(tuple(reader.fieldnames or ()), names, str(path))
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            count = _row(values, columns, names, where)
            if count.sample in counts:
                raise ManifestError(f"{where}: sample '{count.sample}' is listed a second time")
            counts[count.sample] = count
    if not counts:
        raise ManifestError(f"{path}: lists no samples")
    return tuple(counts.values())


def _columns(header: Sequence[str], names: Sequence[str], path: str) -> dict[str, str]:
    """Which class of the model each column counts. Raises ManifestError where one does not fit."""
    if "sample" not in header:
        raise ManifestError(
            f"{path}: no column 'sample'; a manual count has a row per sample and a column for "
            "each class"
        )
    keys = {find_counted_class(name).names[0]: name for name in names}
    columns = {}
    for column in header:
        counted = find_counted_class(column)
        if column in ("sample", CELLS) or counted.role == "erythroblast":
            continue
        name = keys.get(counted.names[0]) or keys.get(counted.part_of)
        if name is None:
            raise ManifestError(
                f"{path}: the model counts no '{column}'; its classes are {', '.join(names)}: "
                "leave the column out, or add its cells to another"
            )
        columns[column] = name
    missing = [name for name in names if not _is_there(name, set(columns.values()))]
    if missing:
        raise ManifestError(
            f"{path}: no column for '{missing[0]}', which the model counts; add one, with 0 where "
            "none was seen"
        )
    return columns


def _is_there(name: str, counted: set[str]) -> bool:
    """Whether a class has a column, or is the sum or a part of one that has."""
    own: CountedClass = find_counted_class(name)
    related = {find_counted_class(other) for other in counted}
    return name in counted or any(other.part_of == own.names[0] for other in related)


def _row(
    values: Mapping[str, str | None], columns: Mapping[str, str], names: Sequence[str], where: str
) -> ManualCount:
    sample = read_escaped(values.get("sample") or "").strip()
    if not sample:
        raise ManifestError(f"{where}: sample must be filled in")
    numbers = {column: _number(values.get(column), column, where) for column in columns}
    total = values.get(CELLS)
    if total is not None:
        white = _number(total, CELLS, where)
        _check_percentages(sum(numbers.values()), where)
        numbers = {column: value * white / 100 for column, value in numbers.items()}
    elif any(value != round(value) for value in numbers.values()):
        raise ManifestError(
            f"{where}: cells must be whole numbers; percentages need a column '{CELLS}' with how "
            "many were counted"
        )
    cells = dict.fromkeys(names, 0)
    for column, name in columns.items():
        cells[name] += round(numbers[column])
    if not sum(cells.values()):
        raise ManifestError(f"{where}: no cell was counted")
    return ManualCount(sample, cells)


def _number(text: str | None, column: str, where: str) -> float:
    try:
        value = float((text or "0").strip() or "0")
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise ManifestError(f"{where}: {column} must be a number of cells, not '{text}'")
    return value


def _check_percentages(total: float, where: str) -> None:
    if not 95 <= total <= 105:  # rounded ones need not sum to 100
        raise ManifestError(f"{where}: the percentages sum to {total:g}, not to 100")


def compare_counts(
    counts: Sequence[DifferentialCount], manual: Sequence[ManualCount]
) -> Comparison:
    """Our counts beside the manual ones of the same samples, class by class.

    The shares are those as counted, since only these have a binomial error. Raises ValueError where
    no sample is in both.
    """
    ours = {count.sample: count for count in counts if count.status == "ok" and count.white}
    theirs = {count.sample: count for count in manual}
    both = [name for name in ours if name in theirs]
    missing = tuple(sorted({count.sample for count in counts} ^ theirs.keys()))
    if not both:
        raise ValueError(
            "no sample is in the manual count too; here are "
            f"{', '.join(list(ours)[:3]) or 'none'}, "
            f"there are {', '.join(list(theirs)[:3])}"
        )
    first = ours[both[0]]
    names = [row.name for row in first.classes if row.name in theirs[both[0]].cells]
    titles = {row.name: row.title for row in first.classes}
    pairs = [(ours[name], theirs[name]) for name in both]
    classes = tuple(_compare(name, titles[name], pairs) for name in names)
    return Comparison(len(both), classes, missing)


def _compare(
    name: str, title: str, pairs: Sequence[tuple[DifferentialCount, ManualCount]]
) -> ClassComparison:
    differences = tuple(_difference(name, count, manual) for count, manual in pairs)
    manual = [found.manual for found in differences]
    ours = [found.ours for found in differences]
    categories = [into_categories(values, EDGES).tolist() for values in (manual, ours)]
    kappa = weighted_kappa(categories[0], categories[1], len(EDGES) + 1)
    return ClassComparison(
        name,
        title,
        limits_of_agreement(manual, ours),
        passing_bablok(manual, ours),
        None if math.isnan(kappa) else kappa,
        sum(found.within for found in differences),
        differences,
    )


def _difference(name: str, count: DifferentialCount, manual: ManualCount) -> Difference:
    share = next(row.share for row in count.classes if row.name == name)
    theirs = (manual.cells[name], manual.white)
    chance = chance_of_difference(theirs, (share.successes, share.n))
    return Difference(
        count.sample,
        100 * theirs[0] / theirs[1],
        100 * share.successes / share.n,
        chance,
        chance >= SURE,
    )
